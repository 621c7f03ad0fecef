"""An engine that freezes, dies, stops and comes back: a private one, never the user's."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from minimodal.backends.docker import DockerBackend
from minimodal.home import Home
from tests.docker_engine import (
    HELLO,
    Peer,
    containers_of,
    eventually,
    none_left,
    opened_backend,
    short_home,
    spec,
)
from tests.private_docker import NEEDS, PrivateDocker, private_docker

pytestmark = [*NEEDS, pytest.mark.long]

ECHO = HELLO + "while data := engine.recv(100): engine.sendall(data)\n"


@pytest.fixture(scope="module")
def engine(scratch: Path) -> Iterator[PrivateDocker]:
    directory = scratch / "engine"
    with private_docker(directory) as private:
        yield private
    shutil.rmtree(directory, ignore_errors=True)


def on_engine(
    engine: PrivateDocker,
    patch: pytest.MonkeyPatch,
    body: Callable[[DockerBackend], Awaitable[None]],
) -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            with anyio.fail_after(60):
                await body(backend)

    patch.setenv("DOCKER_HOST", engine.url)
    with short_home() as home:
        anyio.run(main, home)


async def echo(peer: Peer, text: bytes) -> None:
    assert peer.transport is not None
    peer.transport.write(text)
    await eventually(lambda: peer.data.endswith(text))


def test_f54_a_frozen_engine_holds_up_starts_and_not_what_runs(
    engine: PrivateDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(backend: DockerBackend) -> None:
        peer, late = Peer(), Peer()
        started = anyio.Event()

        async def launch() -> None:
            async with backend.launch(spec(ECHO, block_network=True), lambda: late):
                await late.heard.wait()
                started.set()

        async with backend.launch(spec(ECHO, block_network=True), lambda: peer):
            await peer.heard.wait()
            async with anyio.create_task_group() as tasks:
                engine.kill(signal.SIGSTOP)
                try:
                    tasks.start_soon(launch)
                    await echo(peer, b"still here")
                    with anyio.move_on_after(7):  # longer than one try of a create
                        await started.wait()
                    assert not started.is_set()
                finally:
                    engine.kill(signal.SIGCONT)
                with anyio.fail_after(5):
                    await started.wait()
        assert await none_left(backend)

    on_engine(engine, monkeypatch, body)


def test_f54_leaving_the_block_while_the_engine_is_away_removes_the_container_later(
    engine: PrivateDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minimodal.backends.docker_removal.REMOVE_WITHIN", 1.0)

    async def body(backend: DockerBackend) -> None:
        peer = Peer()
        async with backend.launch(spec(ECHO, block_network=True), lambda: peer):
            await peer.heard.wait()
            engine.kill(signal.SIGSTOP)
        engine.kill(signal.SIGCONT)
        await eventually(lambda: none_left(backend), within=10)
        assert await containers_of(backend) == []

    on_engine(engine, monkeypatch, body)


def test_f55_a_killed_engine_that_comes_back_knows_its_containers(
    engine: PrivateDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(backend: DockerBackend) -> None:
        peer = Peer()
        async with backend.launch(spec(ECHO, block_network=True), lambda: peer) as container:
            await peer.heard.wait()
            engine.kill(signal.SIGKILL)
            await echo(peer, b"without it")
            engine.start()
            await engine.wait_answering()
            with anyio.fail_after(15):  # without live-restore it ends what it finds running
                assert await container.wait() is not None
        assert await none_left(backend)
        again = Peer()
        async with backend.launch(spec(ECHO, block_network=True), lambda: again):
            await again.heard.wait()

    try:
        on_engine(engine, monkeypatch, body)
    finally:
        engine.kill(signal.SIGTERM)  # the last test: what it started may not outlive it
