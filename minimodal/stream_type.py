"""Modal's module name: `from minimodal.stream_type import StreamType`."""

from .sandbox_process import StreamType as StreamType
