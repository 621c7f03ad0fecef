"""One platform with the test app and an open gateway, for a whole module and backend."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from minimodal.config import load_config
from minimodal.errors import ImageBuildError
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.gateway import functions, shop
from tests.leftovers import nothing_left


@pytest.fixture(scope="module", params=BACKENDS)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The check of tests/conftest.py for the module: warm containers outlive a single test."""
    with nothing_left(request.param == "docker"):
        yield request.param


@pytest.fixture(scope="module")
def host(leaves_nothing: str) -> Iterator[Host]:
    with Host(load_config({"backend": leaves_nothing, "port": 0})) as host:
        yield host


@pytest.fixture(scope="module")
def base(host: Host) -> Iterator[str]:
    """The URL of the gateway, without a slash at its end."""
    with functions.app.run():
        yield host.door.url.rstrip("/")


@pytest.fixture
def http(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, timeout=20) as client:
        yield client


@pytest.fixture
def everything(base: str) -> Iterator[httpx.Client]:
    """A client of the endpoint `everything`."""
    with httpx.Client(base_url=f"{base}/everything", timeout=20) as client:
        yield client


needs_frameworks = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("fastapi", "flask")),
    reason="fastapi and flask are not installed here",
)


@pytest.fixture(scope="module")
def shop_port(leaves_nothing: str) -> Iterator[int]:
    with Host(load_config({"backend": leaves_nothing, "port": 0})) as host:
        try:
            with shop.app.run():
                yield host.door.port
        except ImageBuildError as error:
            pytest.skip(f"the apps' packages cannot be installed here: {error}")


@pytest.fixture(scope="module")
def plain(leaves_nothing: str) -> Iterator[dict[str, int]]:
    """The port of each app under a plain server. It listens before its server is there to answer."""
    ports, processes = {}, []
    script = str(Path(__file__).with_name("plain_server.py"))
    for name in ("fast", "star", "flask"):
        with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
            ports[name] = server.getsockname()[1]
            command = [sys.executable, script, name, str(server.fileno())]
            processes.append(
                subprocess.Popen(command, stderr=subprocess.DEVNULL, pass_fds=[server.fileno()])
            )
    try:
        yield ports
    finally:
        for process in processes:
            process.kill()
            process.wait()
