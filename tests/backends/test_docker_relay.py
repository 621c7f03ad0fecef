"""The engine's end of a relay, with the connections of a container that ends them late or never."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import cast

import anyio
import pytest
from anyio.abc import SocketListener, SocketStream

from minimodal.backends import docker_relay
from minimodal.backends.docker_relay import Relay
from minimodal.backends.docker_requests import Stream
from minimodal.errors import ProtocolError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Container:
    """What a container is told over its stdin."""

    def __init__(self) -> None:
        self.said, self._said = anyio.create_memory_object_stream[bytes](100)

    async def write(self, data: bytes) -> None:
        self.said.send_nowait(data)

    async def hears(self) -> bytes:
        with anyio.fail_after(10):
            return await self._said.receive()

    def close(self) -> None:
        self.said.close()
        self._said.close()


def piece(number: int, data: bytes = b"") -> bytes:
    return struct.pack("<II", number, len(data)) + data


async def accepted(listener: SocketListener) -> SocketStream:
    """The next connection of the relay. `serve` is for servers; we want one at a time."""
    taken: list[SocketStream] = []
    async with anyio.create_task_group() as tasks:

        async def take(stream: SocketStream) -> None:
            taken.append(stream)
            tasks.cancel_scope.cancel()

        with anyio.fail_after(10):
            await listener.serve(take, tasks)
    return taken[0]


@pytest.mark.parametrize("unended", [3, 4])
async def test_what_comes_after_the_engine_hung_up(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, unended: int
) -> None:
    monkeypatch.setattr(docker_relay, "_HUNG_UP", 3)
    container = Container()
    listener = await anyio.create_unix_listener(scratch / "relay.sock")
    async with listener, anyio.create_task_group() as tasks:
        relay = Relay(cast(Stream, container), scratch / "relay.sock", tasks)
        for number in range(1, unended + 1):
            await relay.feed(piece(number, b"hello"))
            await (await accepted(listener)).aclose()
            assert await container.hears() == piece(number)
        await relay.feed(piece(1, b"late"))  # no new connection: the next is that of another number
        if unended > 3:
            with pytest.raises(ProtocolError, match="never ended"):
                await relay.feed(piece(9, b"hello"))
            await relay.feed(piece(1))  # one is ended: there is room again
        await relay.feed(piece(9, b"again"))
        stream = await accepted(listener)
        assert await stream.receive() == b"again"
        await stream.aclose()
        assert await container.hears() == piece(9)
    container.close()
    (scratch / "relay.sock").unlink()


async def test_a_stream_that_ends_ends_its_connections(scratch: Path) -> None:
    container = Container()
    listener = await anyio.create_unix_listener(scratch / "relay.sock")
    async with listener, anyio.create_task_group() as tasks:
        relay = Relay(cast(Stream, container), scratch / "relay.sock", tasks)
        await relay.feed(piece(1, b"hello"))
        stream = await accepted(listener)
        assert await stream.receive() == b"hello"
        await relay.aclose()
        with anyio.fail_after(10), pytest.raises(anyio.EndOfStream):
            await stream.receive()
        await stream.aclose()
    container.close()
    (scratch / "relay.sock").unlink()
