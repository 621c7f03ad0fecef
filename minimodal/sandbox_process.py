"""`ContainerProcess`: a process in a sandbox, and its streams, as the caller holds them."""

from __future__ import annotations

import codecs
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any, Generic, TypeVar

from . import context
from .errors import InvalidError
from .face import BothIterator, both
from .types import EMPTY, Payload

T = TypeVar("T", str, bytes)

CHUNK_BYTES = 256 * 1024
MAX_BUFFER_BYTES = 2 * 1024 * 1024  # of input that was written and not drained
STDOUT, STDERR = 1, 2

FRAME = struct.Struct(">BI")  # kind, length: what the pty's helper reads (backends/inside.py)
INPUT, RESIZE = 0, 1
SIZE = struct.Struct(">HH")


class StreamReader(Generic[T]):
    """Output of a process: iterate over it (`for` or `async for`), or `read()` all of it.

    One consumer: what one has read, another does not get. Without a reader the process has to wait
    once 256 KiB are unread, as with a pipe. Text is UTF-8; other bytes show as `\\xNN`.
    """

    def __init__(
        self, sandbox: str, process: str, stream: int, *, text: bool, by_line: bool
    ) -> None:
        self._fields: dict[str, Any] = {"id": sandbox, "process": process, "stream": stream}
        self._decoder: Any = _decoder() if text else None
        self._by_line = by_line
        self._at = -1
        self._pending = self._empty()
        self._ended = False

    def _empty(self) -> Any:
        return "" if self._decoder is not None else b""

    async def _chunk(self) -> T:
        """The next piece, empty at the end."""
        while not self._ended:
            reply = await context.ask("sandbox.read", **self._fields, at=self._at)
            data = bytes(reply.payload.data)
            self._at = int(reply.fields["at"]) + len(data)
            self._ended = not data
            piece: Any = self._decoder.decode(data, not data) if self._decoder else data
            if piece:
                return piece  # type: ignore[no-any-return]  # T by the decoder
        return self._empty()  # type: ignore[no-any-return]  # T by the decoder

    async def _line(self) -> T:
        newline: Any = "\n" if self._decoder is not None else b"\n"
        while newline not in self._pending and (piece := await self._chunk()):
            self._pending += piece
        line, found, self._pending = self._pending.partition(newline)
        return line + found  # type: ignore[no-any-return]

    async def _next(self) -> T:
        if self._by_line:
            item = await self._line()
        else:
            item, self._pending = self._pending or await self._chunk(), self._empty()
        if not item:
            raise StopAsyncIteration
        return item

    @both
    async def read(self, /) -> T:
        """All output up to its end; empty when that was read before."""
        parts, self._pending = [self._pending], self._empty()
        while piece := await self._chunk():
            parts.append(piece)
        return self._empty().join(parts)  # type: ignore[no-any-return]

    @both
    async def readline(self, /) -> T:
        """The next line with its newline; empty at the end."""
        return await self._line()

    def __iter__(self) -> Iterator[T]:
        return iter(BothIterator(self._next, _nothing))

    def __aiter__(self) -> AsyncIterator[T]:
        return aiter_of(BothIterator(self._next, _nothing))


def aiter_of(iterator: BothIterator[T]) -> AsyncIterator[T]:
    return iterator.__aiter__()


async def _nothing() -> None:
    """A reader that stops early leaves the rest to the next one."""


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("backslashreplace")


class StreamWriter:
    """Input of a process. Nothing is sent before `drain()`."""

    def __init__(self, sandbox: str, process: str, *, framed: bool = False) -> None:
        self._fields: dict[str, Any] = {"id": sandbox, "process": process}
        self._framed = framed  # a pty's helper reads sizes of the terminal beside input
        self._buffer = bytearray()
        self._eof = False
        self._closed = False

    def write(self, data: bytes | bytearray | memoryview | str) -> None:
        """Add to what the next `drain()` sends, at most 2 MiB (BufferError).

        Raises ValueError after `write_eof()`, TypeError for what is neither text nor bytes.
        """
        if self._eof:
            raise ValueError("stdin is closed: write_eof() was called")
        if isinstance(data, str):
            data = data.encode()
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"stdin takes text or bytes, not {type(data).__name__}")
        if len(self._buffer) + len(data) > MAX_BUFFER_BYTES:
            raise BufferError("more than 2 MiB of input are not drained: call drain() in between")
        self._add(INPUT, data)

    def resize(self, rows: int, columns: int) -> None:
        """Tell a process with a pty the new size of its terminal, at the next `drain()`."""
        if not self._framed:
            raise InvalidError("the process has no pty, so no size of one")
        self._add(RESIZE, SIZE.pack(rows, columns))

    def _add(self, kind: int, data: bytes | bytearray | memoryview) -> None:
        if self._framed:
            self._buffer += FRAME.pack(kind, len(data))
        self._buffer += data

    def write_eof(self) -> None:
        """Close the stream behind what was written, at the next `drain()`."""
        self._eof = True

    @both
    async def drain(self, /) -> None:
        """Send what was written; returns when the process has taken it or has room for it.

        Raises ValueError where the process has ended or closed its stdin.
        """
        while self._buffer:
            part = bytes(self._buffer[:CHUNK_BYTES])
            await context.ask("sandbox.write", Payload(part), **self._fields, eof=False)
            del self._buffer[: len(part)]
        if self._eof and not self._closed:
            await context.ask("sandbox.write", EMPTY, **self._fields, eof=True)
            self._closed = True


class ContainerProcess(Generic[T]):
    """A process in a sandbox. Made by `Sandbox.exec`."""

    def __init__(
        self,
        sandbox: str,
        process: str,
        *,
        text: bool = True,
        by_line: bool = False,
        pty: bool = False,
    ) -> None:
        self._fields: dict[str, Any] = {"id": sandbox, "process": process}
        self._returncode: int | None = None
        self.stdin = StreamWriter(sandbox, process, framed=pty)
        self.stdout: StreamReader[T] = StreamReader(
            sandbox, process, STDOUT, text=text, by_line=by_line
        )
        self.stderr: StreamReader[T] = StreamReader(
            sandbox, process, STDERR, text=text, by_line=by_line
        )

    def __repr__(self) -> str:
        return f"<ContainerProcess {self._fields['process']} of {self._fields['id']}>"

    @property
    def object_id(self) -> str:
        """Its id within the sandbox."""
        return str(self._fields["process"])

    @property
    def returncode(self) -> int:
        """The exit code, 128 + n for signal n, -1 after its timeout.

        Raises InvalidError before `wait()` or `poll()` has seen the end.
        """
        if self._returncode is None:
            raise InvalidError("the exit code is known after wait(), or when poll() gave it")
        return self._returncode

    async def _join(self, timeout: float | None) -> int | None:
        if self._returncode is None:
            reply = await context.ask("sandbox.join", **self._fields, timeout=timeout)
            self._returncode = reply.fields["returncode"]
        return self._returncode

    @both
    async def wait(self, /) -> int:
        """Wait for its end and give the exit code; never raises for what the process did.

        With much unread output it does not end: read first, or use `stdout=StreamType.DEVNULL`.
        """
        code = await self._join(None)
        assert code is not None
        return code

    @both
    async def poll(self, /) -> int | None:
        """The exit code, or None while it runs."""
        return await self._join(0)

    @both
    async def attach(self, /) -> None:
        """Show its output on this process's stdout until it has ended."""
        import sys

        while piece := await self.stdout._chunk():
            sys.stdout.write(piece if isinstance(piece, str) else piece.decode(errors="replace"))
            sys.stdout.flush()
        await self._join(None)


class StreamType:
    """Where output of a process goes: to the reader, to this program's output, nowhere."""

    PIPE = "pipe"
    STDOUT = "log"
    DEVNULL = "null"

    @staticmethod
    def check(what: str, value: object) -> str:
        """`value` as a text. Raises InvalidError, about `what`, where it is none of the three."""
        if value not in ("pipe", "log", "null"):
            raise InvalidError(f"{what} is StreamType.PIPE, STDOUT or DEVNULL, not {value!r}")
        return str(value)
