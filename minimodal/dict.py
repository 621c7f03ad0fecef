"""Modal's module name: `from minimodal.dict import Dict`."""

from .shared import Dict as Dict
