"""Modal's module name for the errors: `from minimodal.exception import InvalidError`."""

from .errors import *  # noqa: F403
