"""One platform for each module and backend; the sweep after each test; the table."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from minimodal.engine import session
from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_store import VolumeStore
from minimodal.engine_lock import hold_engine_lock
from minimodal.home import Home, open_home
from tests.conftest import BACKENDS
from tests.faults.impatient import impatient
from tests.faults.suite import Platform, Watch, open_platform, watch
from tests.faults.views import ENGINE, Views
from tests.leftovers import nothing_left


@pytest.fixture(scope="module", params=BACKENDS)
def platform(request: pytest.FixtureRequest, home: Path) -> Iterator[Platform]:
    """The tests of a module with the same backend run one after the other, and share it."""
    descriptors, shared = _descriptors(), set(os.listdir("/dev/shm"))
    with nothing_left(request.param == "docker"), open_platform(request.param) as platform:
        yield platform
    assert _descriptors() <= descriptors + 2, "descriptors are left open"
    assert set(os.listdir("/dev/shm")) <= shared


@pytest.fixture(scope="module")
def port(leaves_nothing: None) -> Iterator[int]:
    """Of a gateway without patience. A module that asks for it has a `leaves_nothing` of its own scope."""
    with impatient() as port:
        yield port


@pytest.fixture
def everything(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://localhost:{port}/everything", timeout=20) as client:
        yield client


@pytest.fixture
def events(platform: Platform) -> Iterator[Watch]:
    with watch(platform) as found:
        yield found


@pytest.fixture
def quick_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """For containers that start in this test: four missed heartbeats are noticed in 1.2 s."""
    monkeypatch.setattr(session, "HEARTBEAT", 0.3)


@pytest.fixture
def own_home(scratch: Path) -> Iterator[Home]:
    """A home for one test, with a path that is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="h", dir=scratch))
    yield open_home(directory)
    shutil.rmtree(directory)


@pytest.fixture
def seen(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say what was seen, for the table."""

    def say(words: str) -> None:
        request.node.user_properties.append(("seen", words))

    return say


@pytest.fixture(autouse=True)
def leaves_nothing(
    request: pytest.FixtureRequest, home: Path, seen: Callable[[str], None]
) -> Iterator[None]:
    """The sweep. Warm containers of the shared platform outlive a test; they are counted at its end."""
    if "platform" in request.fixturenames:
        platform: Platform = request.getfixturevalue("platform")
        yield
        seen(platform.sweep())
        return
    docker = request.node.get_closest_marker("docker") is not None
    with nothing_left(docker, "this test"):
        yield


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def files(own_home: Home) -> Iterator[VolumeFiles]:
    with hold_engine_lock(own_home, ENGINE):
        yield VolumeFiles(own_home, ENGINE)


@pytest.fixture
def store(files: VolumeFiles) -> VolumeStore:
    return files.store(files.create("v", exist_ok=False).id)


@pytest.fixture
def views(files: VolumeFiles, store: VolumeStore) -> Views:
    return Views(files, store)
