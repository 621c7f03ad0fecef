"""Modal's module name: `from minimodal.functions import FunctionCall`."""

from .call import FunctionCall as FunctionCall
from .call import gather as gather
from .function import Function as Function
