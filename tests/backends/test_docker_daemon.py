"""An engine that freezes, dies, stops and comes back: a private one, never the user's."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from minimodal.backends.docker import DockerBackend
from minimodal.home import Home
from tests.docker_engine import (
    BASE,
    HELLO,
    Peer,
    containers_of,
    eventually,
    none_left,
    opened_backend,
    short_home,
    spec,
)

pytestmark = [
    pytest.mark.docker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(os.getuid() != 0, reason="only root can start a Docker engine"),
    pytest.mark.skipif(not shutil.which("dockerd"), reason="there is no dockerd to start"),
]

ECHO = HELLO + "while data := engine.recv(100): engine.sendall(data)\n"


class Engine:
    """A dockerd of our own, in a network of its own: started beside another one it removes docker0."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"unix://{directory}/d.sock"
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        command = [
            "unshare",
            "--net",
            "dockerd",
            "--host",
            self.url,
            "--bridge=none",
            "--iptables=false",
        ]
        for option, name in (("data-root", "data"), ("exec-root", "exec"), ("pidfile", "pid")):
            command += [f"--{option}", str(self.directory / name)]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    def kill(self, number: int) -> None:
        self.process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            self.process.wait()
            # Its containerd dies with it. Where nobody reaps that, the next one takes it for alive.
            (self.directory / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def unmount(self) -> None:
        """What it leaves mounted of its data."""
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.directory}/"):
                subprocess.run(["umount", "--lazy", mount], check=True)

    def docker(self, *arguments: str, pipe: subprocess.Popen[bytes] | None = None) -> None:
        subprocess.run(
            ["docker", "--host", self.url, *arguments],
            stdin=pipe.stdout if pipe else None,
            capture_output=True,
            check=True,
            timeout=60,
        )

    def answers(self) -> bool:
        try:
            self.docker("version")
        except subprocess.CalledProcessError:
            return False
        return True

    async def wait_answering(self) -> None:
        await eventually(lambda: anyio.to_thread.run_sync(self.answers), within=30)


@pytest.fixture(scope="module")
def engine(scratch: Path) -> Iterator[Engine]:
    directory = scratch / "engine"
    directory.mkdir()
    private = Engine(directory)
    private.start()
    try:
        anyio.run(private.wait_answering)
        with subprocess.Popen(["docker", "save", BASE.name], stdout=subprocess.PIPE) as image:
            private.docker("load", pipe=image)
        yield private
    finally:
        if private.process.poll() is None:
            private.kill(signal.SIGTERM)
        private.unmount()
        shutil.rmtree(directory, ignore_errors=True)


def on_engine(
    engine: Engine, patch: pytest.MonkeyPatch, body: Callable[[DockerBackend], Awaitable[None]]
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


def test_a_frozen_engine_holds_up_starts_and_not_what_runs(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
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


def test_leaving_the_block_while_the_engine_is_away_removes_the_container_later(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
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


def test_a_killed_engine_that_comes_back_knows_its_containers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
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
