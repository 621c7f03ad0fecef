"""How the script `inside.py` is started in a container, and the byte streams that it makes there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ByteStream

from minimodal.protocols import Container, Process

from . import inside
from .bundle import SOCKET

DIAL_WITHIN = 10.0  # seconds until a relay must have connected


@cache
def _text() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


def command(python: str, run: str, **request: Any) -> tuple[str, ...]:
    """The command that does `run` (see inside.py) with the image's interpreter."""
    return (python, "-I", "-S", "-c", _text(), json.dumps({"run": run, **request}))


def keeper(python: str) -> tuple[str, ...]:
    """The command of a container that only waits, and ends with its engine."""
    return command(python, "keep", socket=SOCKET)


async def relayed(container: Container, python: str, port: int) -> ByteStream:
    """A connection to a port on the container's own loopback. Raises OSError where nobody listens."""
    nothing: Mapping[str, str] = {}
    process = await container.exec(command(python, "relay", port=port), env=nothing, workdir="/")
    stream = RelayStream(process)
    try:
        with anyio.fail_after(DIAL_WITHIN):
            await stream.take(len(inside.CONNECTED))
    except (anyio.EndOfStream, TimeoutError):
        await stream.aclose()
        raise ConnectionRefusedError(f"nobody listens on port {port} of {container.id}") from None
    except BaseException:
        await stream.aclose()
        raise
    return stream


class RelayStream(ByteStream):
    """What a relay joins, as one stream; closing it ends the process."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._unread = b""
        self._left = 0  # bytes of the piece that is being read

    async def take(self, count: int) -> bytes:
        """The next `count` bytes that the relay wrote."""
        while len(self._unread) < count:
            self._unread += await self._process.stdout.receive()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._left:
            (self._left,) = inside.LENGTH.unpack(await self.take(inside.LENGTH.size))
            if not self._left:
                raise anyio.EndOfStream
        data = await self.take(min(self._left, max_bytes, max(1, len(self._unread))))
        self._left -= len(data)
        return data

    async def send(self, item: bytes) -> None:
        await self._process.stdin.send(item)

    async def send_eof(self) -> None:
        await self._process.stdin.aclose()

    async def aclose(self) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            await self._process.kill()
