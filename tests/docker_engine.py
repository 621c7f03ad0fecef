"""What the Docker tests share: a home, a backend on the real engine, an agent that only says hello."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import anyio

from minimodal.backends.docker import DockerBackend, open_backend
from minimodal.backends.docker_connect import open_first
from minimodal.engine_lock import hold_engine_lock
from minimodal.home import Home, open_home
from minimodal.images.shelves import DockerShelf
from minimodal.layers import Base, ImageSpec
from minimodal.types import ContainerSpec, ImageRef, new_id

BASE_LAYERS = (Base("python:3.11-slim", python="3.11"),)
BASE = ImageRef("", "python:3.11-slim")
HELLO = """
import os, socket, sys
engine = socket.socket(socket.AF_UNIX)
engine.connect("/run/minimodal/engine.sock")
engine.sendall(b"hello")
"""
STAY = "engine.recv(1)\n"


@contextlib.contextmanager
def short_home() -> Iterator[Home]:
    """A home of its own, below the session's short temporary directory."""
    directory = tempfile.mkdtemp(prefix="h-")
    try:
        yield open_home(directory)
    finally:
        shutil.rmtree(directory)


@contextlib.asynccontextmanager
async def opened_backend(home: Home, **config: Any) -> AsyncIterator[DockerBackend]:
    """As host.py opens it: with an engine id whose lock is held. Leaves no container behind."""
    engine = new_id("en")
    with hold_engine_lock(home, engine):
        async with open_backend(home, SimpleNamespace(engine_id=engine, **config)) as backend:
            yield backend
            await eventually(lambda: none_left(backend))
        async with open_backend(home, SimpleNamespace(engine_id=engine, **config)) as again:
            await eventually(lambda: is_gone(again, engine), within=15)


async def is_gone(backend: DockerBackend, engine: str) -> bool:
    """Whether no container of an engine is left: a busy daemon still lists what it is removing."""
    return not await backend._api.list_containers(f"minimodal.engine={engine}")


async def containers_of(backend: DockerBackend) -> list[dict[str, Any]]:
    """The containers of a backend's home, but not the holder of the shared network."""
    found = await backend._api.list_containers(f"minimodal.home={backend._owner.home}")
    return [each for each in found if "-net-" not in each["Names"][0]]


async def none_left(backend: DockerBackend) -> bool:
    return not await containers_of(backend)


async def eventually(holds: Callable[[], Any], within: float = 5) -> bool:
    """Wait for what nobody announces: True, or TimeoutError."""
    with anyio.fail_after(within):
        while True:
            answer = holds()
            if await answer if inspect.isawaitable(answer) else answer:
                return True
            await anyio.sleep(0.02)


async def joined(backend: DockerBackend) -> str:
    """The shared network, as soon as there is one."""
    await eventually(lambda: backend._network._holder)
    return await backend._network.mode()


def spec(code: str, **fields: Any) -> ContainerSpec:
    """A container that runs `code` instead of the agent."""
    command = ("python3", "-u", "-c", code)
    return ContainerSpec(new_id("ct"), "test", fields.pop("image", BASE), command=command, **fields)


class Peer(asyncio.Protocol):
    """The engine's end of one stream."""

    def __init__(self) -> None:
        self.data = b""
        self.heard = anyio.Event()
        self.closed = anyio.Event()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.heard.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


async def output_of(backend: DockerBackend, code: str, **fields: Any) -> str:
    """What `code` sends to the engine's socket (as `engine`) until its container ends."""
    peer = Peer()
    with anyio.fail_after(30):
        async with backend.launch(spec(HELLO + code, **fields), lambda: peer) as container:
            reason = await container.wait()
            await peer.closed.wait()
    assert reason.code == 0, reason.detail
    return peer.data.decode().removeprefix("hello")


def forget_images(home: Home) -> None:
    """Remove what a home has built in the engine, but the bases, which others may build upon now."""

    async def main() -> None:
        async with open_first(None) as api:
            shelf = DockerShelf(api, home)
            images = [each for each in await shelf.images() if "from_registry" not in each.step]
            while tops := [i for i in images if i.digest not in {each.parent for each in images}]:
                images = [each for each in images if each not in tops]
                for top in tops:
                    await shelf.delete(top)

    anyio.run(main)


async def forget(backend: DockerBackend, *specs: ImageSpec) -> None:
    """Remove the images of these specs, but the base that all tests share."""
    for spec_ in specs:
        for digest in reversed(spec_.digests()):
            if digest != ImageSpec(BASE_LAYERS).digest:
                await backend._api.remove_image(f"minimodal/{digest}")
