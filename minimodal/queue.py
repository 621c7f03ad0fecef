"""Modal's module name: `from minimodal.queue import Queue`."""

from .shared_queue import Queue as Queue
