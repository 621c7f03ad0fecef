"""Rows of the database as records, and back. Knows column names; runs no transaction.

Payloads are packed into one value; parts over 256 KiB go to blobs, so that rows stay small and a
listing never reads megabytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from minimodal.engine.blobs import Blobs
from minimodal.landing import writable
from minimodal.pickling import OUT_OF_BAND_BYTES
from minimodal.types import Buffer, Call, CallState, Failure, Payload


class Stored(NamedTuple):
    """An unfinished call as the store has it: what a restarted engine goes on from."""

    call: Call
    attempt: int  # attempts started so far
    errors: int  # of these, ended by the user's code
    losses: int  # of these, lost with a container or an engine
    not_before: float | None  # wall clock: its retry waits until then
    created: float


class CallInfo(NamedTuple):
    """A call in a listing: no values, so nothing is unpickled or read from blobs."""

    id: str
    function: str
    method: str
    app: str
    user: str
    priority: int
    state: CallState
    attempts: int
    losses: int
    created: float
    started: float | None
    finished: float | None
    engine: str
    parent: str | None
    retry_of: str | None
    error: str  # "ValueError: no such file", or ""
    dead: bool


class Attempt(NamedTuple):
    """One failed attempt."""

    number: int
    lost: bool
    started: float | None
    ended: float
    failure: Failure


class DeadLetter(NamedTuple):
    """A call that failed for good, with what is needed to understand it and to run it again."""

    info: CallInfo
    input: Payload
    attempts: tuple[Attempt, ...]


INFO_COLUMNS = (
    "id, function, method, app, user, state, attempt, losses, created, started, finished, engine, "
    "parent, retry_of, failure, dead, priority"
)

CALL_COLUMNS = (
    "id, function, input, method, user, priority, parent, depth, stream, durable, "
    "attempt, errors, losses, not_before, created"
)


def info_of(row: tuple[Any, ...]) -> CallInfo:
    failure = failure_of(row[14])
    return CallInfo(
        id=row[0],
        function=row[1],
        method=row[2],
        app=row[3],
        user=row[4],
        priority=row[16],
        state=CallState(row[5]),
        attempts=row[6],
        losses=row[7],
        created=row[8],
        started=row[9],
        finished=row[10],
        engine=row[11],
        parent=row[12],
        retry_of=row[13],
        error=f"{failure.type}: {failure.message}" if failure else "",
        dead=bool(row[15]),
    )


def stored_of(row: tuple[Any, ...], blobs: Blobs) -> Stored:
    call = Call(
        id=row[0],
        function=row[1],
        payload=unpack(row[2], blobs),
        method=row[3],
        user=row[4],
        priority=row[5],
        parent=row[6],
        depth=row[7],
        stream=bool(row[8]),
        durable=bool(row[9]),
    )
    return Stored(call, *row[10:15])


def attempt_of(row: tuple[Any, ...]) -> Attempt:
    number, lost, started, ended, failure = row
    found = failure_of(failure)
    assert found
    return Attempt(number, bool(lost), started, ended, found)


def failure_text(failure: Failure | None) -> str | None:
    """Without its payload, which is kept as bytes."""
    if failure is None:
        return None
    return json.dumps([failure.type, failure.message, failure.traceback])


def failure_of(text: str | None, payload: Payload | None = None) -> Failure | None:
    if not text:
        return None
    name, message, traceback = json.loads(text)
    return Failure(name, message, traceback, payload)


def app_of(function: str) -> str:
    return function.split("/", 1)[0]


# --- payloads -------------------------------------------------------------------------------------

_PLAIN, _PARTS = b"\0", b"\1"
_PART = struct.Struct("<BQ")  # flags; number of bytes
_ELSEWHERE, _AS_BYTES = 1, 2  # a digest follows in place of the bytes; a buffer that is `bytes`


def is_small(payload: Payload) -> bool:
    """Whether packing it touches no file."""
    return payload.nbytes <= OUT_OF_BAND_BYTES


def pack(payload: Payload, blobs: Blobs) -> tuple[bytes, tuple[str, ...]]:
    """One value for a row, and the digests of the parts that went to blobs. Blocks if not small."""
    if not payload.buffers and is_small(payload):
        return _PLAIN + payload.data, ()
    packed: list[Buffer] = [_PARTS]
    digests: list[str] = []
    for part in (payload.data, *payload.buffers):
        nbytes = memoryview(part).nbytes
        kind = _AS_BYTES if type(part) is bytes else 0
        if nbytes > OUT_OF_BAND_BYTES:
            digests.append(blobs.put(part))
            packed += [_PART.pack(kind | _ELSEWHERE, nbytes), bytes.fromhex(digests[-1])]
        else:
            packed += [_PART.pack(kind, nbytes), part]
    return b"".join(packed), tuple(digests)


def unpack(packed: bytes, blobs: Blobs) -> Payload:
    """Blocks if it was not small. Raises StateError or NotFoundError for damaged or lost blobs."""
    if packed[:1] == _PLAIN:
        return Payload(packed[1:])
    (data, _), *buffers = _parts(packed, blobs)
    return Payload(data, tuple(b if as_bytes else writable(b) for b, as_bytes in buffers))


def in_row(packed: bytes) -> Payload | None:
    """A value's pickle without its buffers; None: it is in a file, which is not touched."""
    if packed[:1] == _PLAIN:
        return Payload(packed[1:])
    flags, nbytes = _PART.unpack_from(packed, 1)
    start = 1 + _PART.size
    return None if flags & _ELSEWHERE else Payload(packed[start : start + nbytes])


def _parts(packed: bytes, blobs: Blobs) -> Iterable[tuple[bytes, bool]]:
    position = 1
    while position < len(packed):
        flags, nbytes = _PART.unpack_from(packed, position)
        position += _PART.size
        as_bytes = flags & _AS_BYTES != 0
        if flags & _ELSEWHERE:
            yield blobs.get(packed[position : position + 32].hex()), as_bytes
            position += 32
        else:
            yield packed[position : position + nbytes], as_bytes
            position += nbytes
