"""Modal's module name: `from minimodal.retries import Retries`."""

from .policy import Retries as Retries
