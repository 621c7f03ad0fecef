"""No engine, the wrong one, and one that answers badly: what is said, and that nothing is left."""

from __future__ import annotations

import itertools
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from minimodal.backends.docker import DockerBackend, open_backend
from minimodal.errors import LaunchError, RuntimeUnavailable
from minimodal.home import Home
from tests.docker_engine import (
    BASE,
    HELLO,
    STAY,
    Peer,
    containers_of,
    eventually,
    none_left,
    opened_backend,
    output_of,
    short_home,
    spec,
)
from tests.docker_proxy import Answer, Hold, Rule, misbehaving_engine, once, refusal


def refusal_of(monkeypatch: pytest.MonkeyPatch, host: str) -> str:
    """Why no backend could be opened at `host`; in bounded time."""

    async def main(home: Home) -> None:
        async with open_backend(home, None):
            pass

    monkeypatch.setenv("DOCKER_HOST", host)
    start = time.monotonic()
    with short_home() as home, pytest.raises(RuntimeUnavailable) as raised:
        anyio.run(main, home)
    assert time.monotonic() - start < 10
    return str(raised.value)


def test_f53_no_engine_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    words = refusal_of(monkeypatch, f"unix://{tmp_path}/no.sock")
    assert "no Docker engine listens at" in words
    assert "DOCKER_HOST" in words
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "no Docker engine listens at" in refusal_of(monkeypatch, f"tcp://127.0.0.1:{port}")


def test_f53_a_port_that_accepts_and_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        words = refusal_of(monkeypatch, f"tcp://127.0.0.1:{server.getsockname()[1]}")
    assert "did not answer within 3.0 s" in words
    assert "is it the right one?" in words


def test_f53_something_else_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,))
        thread.start()
        words = refusal_of(monkeypatch, f"tcp://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert "is it the right one?" in words


def test_ssh_is_refused_with_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ssh -L" in refusal_of(monkeypatch, "ssh://me@far")


@pytest.mark.docker
@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without permission")
def test_f53_no_permission() -> None:
    async def main() -> None:
        async with open_backend(None, None):  # type: ignore[arg-type]  # it is not reached
            pass

    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        os.environ["HOME"] = "/"
        try:
            anyio.run(main)
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(write)
    with open(read) as pipe:
        words = pipe.read()
    os.waitpid(child, 0)
    assert words.startswith("RuntimeUnavailable: no permission for the Docker engine at")
    assert "usermod -aG docker" in words


@pytest.mark.docker
def test_a_runtime_that_the_engine_lacks_is_refused_at_once() -> None:
    async def main(home: Home) -> None:
        with pytest.raises(RuntimeUnavailable, match=r"no OCI runtime 'runx'; it has .*runc"):
            async with opened_backend(home, runtime="runx"):
                pass

    with short_home() as home:
        anyio.run(main, home)


def with_rule(
    monkeypatch: pytest.MonkeyPatch, rule: Rule, body: Callable[[DockerBackend], Awaitable[None]]
) -> None:
    """Run `body(backend)` on an engine that misbehaves by `rule`."""

    async def main(home: Home) -> None:
        async with misbehaving_engine(home.state / "d.sock", rule) as host:
            monkeypatch.setenv("DOCKER_HOST", host)
            async with opened_backend(home) as backend:
                with anyio.fail_after(20):
                    await body(backend)

    with short_home() as home:
        anyio.run(main, home)


CUT = Answer(b"")
HALF = Answer(
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"Id": "x'
)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("request_line", "action"),
    [
        ("POST .*/create", HALF),
        ("GET .*/json", HALF),
        *itertools.product(
            ("POST .*/create", "POST .*/start", "GET .*/json", "DELETE /.*/containers/"),
            (CUT, refusal(503, "starting")),
        ),
    ],
)
def test_f58_a_bad_answer_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, action: Answer, request_line: str
) -> None:
    async def body(backend: DockerBackend) -> None:
        assert await output_of(backend, "engine.sendall(b'!')") == "!"

    with_rule(monkeypatch, once(request_line, action), body)


@pytest.mark.docker
def test_f59_a_broken_network_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(backend: DockerBackend) -> None:
        with pytest.raises(LaunchError, match=r"could not find bridge docker0.*block_network=True"):
            await output_of(backend, "")

    action = refusal(500, "network: could not find bridge docker0")
    with_rule(monkeypatch, once("POST .*/start", action, times=2), body)


@pytest.mark.docker
def test_f54_a_create_that_was_given_up_on_is_removed_when_it_appears(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Hold(until=anyio.Event())
    monkeypatch.setattr("minimodal.backends.docker_api.USUAL_PACE", 0.3)
    monkeypatch.setattr("minimodal.backends.docker_removal.GHOST_DELAYS", (2.0,) * 5)  # to be seen

    async def body(backend: DockerBackend) -> None:
        async def launch() -> None:
            async with backend.launch(spec(HELLO + STAY), Peer):
                pass

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(launch)
            await held.arrived.wait()
            tasks.cancel_scope.cancel()
        # Its directory is gone, which alone fails most late creates: this one finds it again.
        (backend._sockets.path / "1").mkdir(parents=True)
        held.until.set()
        assert await eventually(lambda: containers_of(backend))
        assert await eventually(lambda: none_left(backend), within=10)

    with_rule(monkeypatch, once("POST .*name=minimodal-ct-", held), body)


@pytest.mark.docker
def test_f54_a_holder_of_the_network_that_appears_while_the_backend_closes_is_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its create hangs in the engine until the backend looks for it for the second time."""
    monkeypatch.setattr("minimodal.backends.docker_api.USUAL_PACE", 0.3)
    asked, thaw, removals = anyio.Event(), anyio.Event(), [0]

    def rule(request: str) -> Hold | None:
        if re.search("DELETE .*-net-0", request):
            removals[0] += 1
            if removals[0] == 2:
                thaw.set()
        if not re.search("POST .*-net-0", request):
            return None
        asked.set()
        return Hold(thaw)

    async def main(home: Home) -> None:
        async with misbehaving_engine(home.state / "d.sock", rule) as host:
            monkeypatch.setenv("DOCKER_HOST", host)
            async with opened_backend(home) as backend:
                backend._network.ensure(backend._tasks, BASE.name, BASE.python)
                await asked.wait()
            assert thaw.is_set()  # `opened_backend` sees that nothing is left

    with short_home() as home:
        anyio.run(main, home)


@pytest.mark.docker
def test_f58_the_news_of_an_end_survive_a_cut_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(backend: DockerBackend) -> None:
        assert await output_of(backend, "engine.sendall(b'!')") == "!"

    with_rule(monkeypatch, once("POST .*/wait", CUT, times=2), body)


@pytest.mark.docker
@pytest.mark.parametrize("action", [CUT, refusal(500, "cannot kill")])
def test_a_kill_that_the_engine_refuses_is_left_to_the_removal(
    monkeypatch: pytest.MonkeyPatch, action: Answer
) -> None:
    """Raised, it ended the platform with all its calls: in the session's task group nobody caught it."""

    async def body(backend: DockerBackend) -> None:
        peer = Peer()
        code = HELLO + "while engine.recv(100): pass\n"
        async with backend.launch(spec(code, block_network=True), lambda: peer) as container:
            await peer.heard.wait()
            await container.kill()
        assert await none_left(backend)

    with_rule(monkeypatch, once("POST .*/kill", action, times=9), body)


@pytest.mark.docker
def test_an_uploaded_file_is_closed_by_who_opened_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp closes files in a thread: closed twice at once, one raises there and ends the engine."""

    async def body(backend: DockerBackend) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(8 << 20))
            with anyio.move_on_after(0.2):
                await backend._api.put_archive("nobody", "/", file)
            await anyio.sleep(0.2)  # for a thread
            assert not file.closed

    with_rule(monkeypatch, once("PUT .*/archive", Hold(anyio.Event())), body)
