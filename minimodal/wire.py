"""Frames between engine and agent, sans-IO: `encode` and `Decoder`.

A frame is a fixed header, a `meta` text (JSON, or fields joined by NUL on the hot path), a `body`
(a pickle that nobody but its addressee opens) and out-of-band buffers. Lengths are checked against
`Limits` before anything is allocated; whoever breaks the format gets a ProtocolError and is cut off.

    | kind u8 | flags u8 | buffers u16 | meta u32 | seq u64 | body u64 |  then the buffers' lengths (u64,
    the highest bit: AS_BYTES), meta, body, buffers
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from .errors import ProtocolError
from .landing import Landing
from .types import Buffer, Payload

VERSION = 2
HEADER = struct.Struct("<BBHIQQ")
SCRATCH_BYTES = 256 * 1024
AS_BYTES = 1 << 63  # with a buffer's length: it arrives as `bytes`; others as memory to write to
COPY_BELOW = 64 * 1024  # smaller parts are joined into one write


class Kind(IntEnum):
    """What a frame says. The arrow is the direction: E engine, S supervisor, X executor, C client."""

    HELLO = 1  # S X C → E: JSON role, version, python, pid, slot
    START = 2  # E → S: JSON what to load and how to run it; body: the function by value
    READY = 3  # S → E modules are imported; X → E @enter is done. seq: slot
    FORK = 4  # E → S: make an executor for slot `seq`
    INTERRUPT = 5  # E → S: raise in the executor of slot (meta) if it still runs call `seq`
    KILL = 6  # E → S: SIGKILL the executor of slot `seq`
    EXITED = 7  # S → E: JSON executor of slot `seq` ended: code, signal, oom
    PING = 8  # E → S
    PONG = 9  # S → E
    STOP = 10  # E → S X: run @exit and leave
    LOG = 11  # S X → E: meta "stream\0call id", body text bytes
    FAILED = 12  # S X → E: JSON startup failed: type, message, traceback; body: pickled exception
    RECALL = 13  # E → S: give back calls of slot (meta) that have not begun and are below `seq`
    RECALLED = (
        14  # S → E: seq: the last call that slot (meta) has begun; later ones were given back
    )
    STACK = (
        15  # E → S: where is the code of slot `seq`? E → X: of call `seq`? S X → E: JSON threads
    )
    CALL = 20  # E → X: meta fields joined by NUL; body args. seq names it in all answers
    RESULT = 21  # X → E: meta seconds that it took; body value
    ERROR = 22  # X → E: JSON type, message, traceback; body: pickled exception
    YIELD = 23  # X → E: body one item
    CANCEL = 24  # E → X
    CREDIT = 25  # E → X: meta: number of items that may be yielded more
    RETURNED = 26  # X → E: this call was recalled before it began
    INPUT = 27  # E → X: body: one more part of what a running call reads (a web request's body)
    TAKEN = 28  # X → E: meta: number of INPUTs that the running call has read
    REQUEST = 30  # C → E: JSON [op, fields]; body payload
    REPLY = 31  # E → C: JSON fields; body payload
    REFUSED = 32  # E → C: JSON error class name, message
    ABANDON = 33  # C → E: request `seq` is no longer wanted


_Part = tuple[int, bool]  # length, and whether it is to arrive as `bytes`
_KINDS = {kind.value: kind for kind in Kind}  # a look-up costs a tenth of Kind(number)


class Limits(NamedTuple):
    """What one peer may send. Bytes."""

    meta_bytes: int = 4 << 20
    body_bytes: int = 2 << 30  # twice what one value may have
    buffers: int = 1024


class Frame:
    __slots__ = ("kind", "meta", "payload", "seq")

    def __init__(self, kind: Kind, seq: int, meta: str, payload: Payload) -> None:
        self.kind = kind
        self.seq = seq
        self.meta = meta
        self.payload = payload


def encode(
    kind: Kind, seq: int = 0, meta: str = "", payload: Payload | None = None
) -> list[Buffer]:
    """The parts of a frame, to be written in order. Small parts are joined, large ones not copied."""
    text = meta.encode()
    if payload is None:
        return [HEADER.pack(kind, 0, 0, len(text), seq, 0) + text]
    data, buffers = payload
    if not buffers:
        head = HEADER.pack(kind, 0, 0, len(text), seq, len(data)) + text
        return [head + data] if len(data) < COPY_BELOW else [head, data]
    views = [memoryview(b).cast("B") for b in buffers]
    head = HEADER.pack(kind, 0, len(views), len(text), seq, len(data))
    marked = (v.nbytes | AS_BYTES * (type(b) is bytes) for v, b in zip(views, buffers, strict=True))
    lengths = struct.pack(f"<{len(views)}Q", *marked)
    return [head + lengths + text + bytes(data), *views]


def plain_result(data: bytes, seq: int) -> tuple[float, Payload] | None:
    """What a RESULT of `seq` says, if the bytes are that, whole, and nothing else."""
    if len(data) < HEADER.size:
        return None
    kind, flags, count, meta_len, its_seq, body_len = HEADER.unpack_from(data)
    body = HEADER.size + meta_len
    if kind != Kind.RESULT or flags or count or its_seq != seq or len(data) != body + body_len:
        return None
    try:
        return float(data[HEADER.size : body]), Payload(data[body:])
    except ValueError:
        return None


class Decoder:
    """Turns bytes into frames. Feed it, or let it lend the buffer to read into (BufferedProtocol).

    Large parts are read straight into the memory of their value: no copy and no growing buffer.
    """

    def __init__(self, on_frame: Callable[[Frame], None], limits: Limits | None = None) -> None:
        self._on_frame = on_frame
        self._limits = limits or Limits()
        self._scratch = bytearray(SCRATCH_BYTES)
        self._start = 0  # unread bytes are scratch[start:end]
        self._end = 0
        self._pending: _Pending | None = None  # a frame whose large parts are still arriving
        self._lent_room = False  # what get_buffer gave last is that frame's

    @property
    def is_empty(self) -> bool:
        """Whether no part of a frame waits for its rest."""
        return self._pending is None and self._start == self._end

    def feed(self, data: Buffer) -> None:
        """Take bytes and call `on_frame` for each frame that is whole. Raises ProtocolError."""
        view = memoryview(data).cast("B")
        while view:
            target = self.get_buffer(len(view))
            n = min(len(target), len(view))
            target[:n] = view[:n]
            self.buffer_updated(n)
            view = view[n:]

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go."""
        if self._pending is not None:
            room = self._pending.room()
            if room:
                self._lent_room = True
                return room
        if self._end == len(self._scratch):
            self._compact()
        return memoryview(self._scratch)[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were written into the buffer that `get_buffer` gave."""
        if self._lent_room:
            assert self._pending is not None
            self._lent_room = False
            self._pending.filled(nbytes)
            return
        self._end += nbytes
        if self._pending is not None:
            self._continue(self._pending)
        while self._pending is None and self._parse_one():
            pass
        if self._start == self._end:
            self._start = self._end = 0

    def _continue(self, pending: _Pending) -> None:
        """Take what is in the scratch buffer and of the large frame."""
        self._start += pending.take(memoryview(self._scratch)[self._start : self._end])
        frame = pending.frame()
        if frame is not None:
            self._pending = None
            self._on_frame(frame)

    def _compact(self) -> None:
        """Move the unread bytes to the front; grow only for a large meta, which is bounded."""
        rest = self._end - self._start
        if self._start == 0:
            grown = bytearray(len(self._scratch) * 2)
            grown[:rest] = self._scratch[:rest]
            self._scratch = grown
        else:
            self._scratch[:rest] = self._scratch[self._start : self._end]
        self._start, self._end = 0, rest

    def _parse_one(self) -> bool:
        available = self._end - self._start
        if available < HEADER.size:
            return False
        kind, flags, count, meta_len, seq, body_len = HEADER.unpack_from(self._scratch, self._start)
        limits = self._limits
        if flags or meta_len > limits.meta_bytes or body_len > limits.body_bytes:
            raise ProtocolError(f"frame of kind {kind} over the limit or of another version")
        if count > limits.buffers:
            raise ProtocolError(f"frame with {count} buffers; the limit is {limits.buffers}")
        known = _KINDS.get(kind)
        if known is None:
            raise ProtocolError(f"unknown frame kind {kind}")
        fixed = HEADER.size + 8 * count + meta_len
        if available < fixed:
            return False
        at = self._start + HEADER.size
        parts: tuple[_Part, ...] = ((body_len, True),)
        whole = body_len
        if count:
            lengths = struct.unpack_from(f"<{count}Q", self._scratch, at)
            at += 8 * count
            parts += tuple((n & ~AS_BYTES, n >= AS_BYTES) for n in lengths)
            whole = sum(nbytes for nbytes, _ in parts)
            if whole > limits.body_bytes:
                raise ProtocolError(f"frame of {whole} bytes is over the limit")
        try:
            meta = self._scratch[at : at + meta_len].decode()
        except UnicodeDecodeError:
            raise ProtocolError("frame whose meta is not UTF-8") from None
        at += meta_len
        if self._end - at >= whole:
            data = self._scratch[at : at + whole]
            payload = _split(memoryview(data), parts) if count else Payload(bytes(data))
            self._start = at + whole
            self._on_frame(Frame(known, seq, meta, payload))
            return self._start < self._end
        if whole <= len(self._scratch) // 2:
            return False  # small: wait for the rest in the scratch buffer
        self._pending = _Pending(known, seq, meta, parts)
        self._start = at
        self._continue(self._pending)
        return False


def _split(whole: memoryview, parts: tuple[_Part, ...]) -> Payload:
    found: list[Buffer] = []
    at = 0
    for nbytes, as_bytes in parts:
        part = whole[at : at + nbytes]
        found.append(bytes(part) if as_bytes else bytearray(part))
        at += nbytes
    return Payload(found[0], tuple(found[1:]))


class _Pending:
    """A frame whose body and buffers are arriving, each where its value will stay."""

    def __init__(self, kind: Kind, seq: int, meta: str, parts: Iterable[_Part]) -> None:
        self._head = (kind, seq, meta)
        self._parts = iter(parts)
        self._arrived: list[Buffer] = []
        self._landing: Landing | None = None  # of the part that is arriving; None: all have
        self._as_bytes = True
        self._next()

    def room(self) -> memoryview:
        assert self._landing is not None
        return self._landing.room()

    def filled(self, nbytes: int) -> None:
        """So many bytes were written into the room."""
        assert self._landing is not None
        self._landing.filled += nbytes

    def take(self, data: memoryview) -> int:
        """Copy from `data` what is of this frame; how much that is."""
        taken = 0
        while self._landing is not None and taken < len(data):
            taken += self._landing.put(data[taken:])
            if self._landing.filled == self._landing.nbytes:
                self._arrived.append(self._landing.value(self._as_bytes))
                self._next()
        return taken

    def _next(self) -> None:
        """Memory for a part is taken when the one before has arrived."""
        self._landing = None
        for nbytes, as_bytes in self._parts:
            if nbytes:
                self._landing, self._as_bytes = Landing(nbytes), as_bytes
                return
            self._arrived.append(b"")

    def frame(self) -> Frame | None:
        """The frame, when it is whole."""
        if self._landing is not None:
            return None
        kind, seq, meta = self._head
        return Frame(kind, seq, meta, Payload(self._arrived[0], tuple(self._arrived[1:])))
