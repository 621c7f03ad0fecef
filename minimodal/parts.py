"""Several byte strings as one, and back: how values of dicts and queues travel and are kept."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from .errors import SerializationError
from .landing import writable
from .types import Buffer, Payload

_COUNT = struct.Struct("<I")


def join(parts: Sequence[Buffer]) -> bytes:
    """One byte string of many."""
    sizes = [memoryview(part).nbytes for part in parts]
    return b"".join((_COUNT.pack(len(parts)), struct.pack(f"<{len(sizes)}Q", *sizes), *parts))


def split(joined: Buffer) -> list[memoryview]:
    """Views of what `join` took. Raises SerializationError for bytes that it did not make."""
    view = memoryview(joined).cast("B")
    try:
        (count,) = _COUNT.unpack_from(view)
        at = _COUNT.size + 8 * count
        sizes = struct.unpack_from(f"<{count}Q", view, _COUNT.size)
    except struct.error as error:
        raise SerializationError(f"these bytes are no list of values: {error}") from error
    if at + sum(sizes) != view.nbytes:
        raise SerializationError("these bytes are no list of values: they end early")
    parts = []
    for size in sizes:
        parts.append(view[at : at + size])
        at += size
    return parts


def pack(payload: Payload) -> bytes:
    """A pickled value with its buffers."""
    return join((payload.data, *payload.buffers))


def unpack(packed: Buffer) -> Payload:
    """A value to be unpickled: an array over a buffer that is read-only would be read-only too."""
    data, *buffers = split(packed)
    return Payload(data, tuple(writable(b) if b.readonly else b for b in buffers))
