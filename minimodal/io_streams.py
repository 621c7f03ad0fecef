"""Modal's module name: `from minimodal.io_streams import StreamReader`."""

from .sandbox_process import StreamReader as StreamReader
from .sandbox_process import StreamWriter as StreamWriter
