"""The Docker daemon freezes, dies, stops, loses its socket, fills its disk: F54-F57, F60."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

import minimodal
from minimodal.config import load_config
from minimodal.host import Host
from tests.faults import load
from tests.leftovers import nothing_left
from tests.private_docker import NEEDS, PrivateDocker, private_docker

pytestmark = [*NEEDS, pytest.mark.long]
Seen = Callable[[str], None]


@pytest.fixture(scope="module", autouse=True)
def leaves_nothing() -> Iterator[None]:
    """The check for the module: a test may put another daemon into the place of the first."""
    with nothing_left(docker=True):
        yield


@pytest.fixture(scope="module")
def daemon(leaves_nothing: None, scratch: Path) -> Iterator[PrivateDocker]:
    """Its data are on a small disk of their own."""
    directory = Path(tempfile.mkdtemp(prefix="d", dir=scratch))
    mount = ["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", str(directory)]
    subprocess.run(mount, check=True)
    try:
        with private_docker(directory) as private:
            yield private
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
        shutil.rmtree(directory)


@pytest.fixture
def host(daemon: PrivateDocker, scratch: Path) -> Iterator[Host]:
    home = Path(tempfile.mkdtemp(prefix="h", dir=scratch))
    config = load_config({"backend": "docker", "docker_host": daemon.url, "home": home})
    with Host(config) as host, load.app.run():
        yield host
    shutil.rmtree(home)


@pytest.mark.slow  # tests/backends/test_docker_daemon.py has the same below the engine
@pytest.mark.fault(
    "F54",
    injected="SIGSTOP to dockerd for 4 s, while calls run and a container is to start",
    expected="warm calls go on; the start waits; it is served in 5 s after SIGCONT; no ghost",
)
def test_f54_the_daemon_freezes(host: Host, daemon: PrivateDocker, seen: Seen) -> None:
    assert load.offline.remote(1) == 1
    with ThreadPoolExecutor(1) as threads:
        daemon.kill(signal.SIGSTOP)
        try:
            cold = threads.submit(load.offline.with_options(timeout=50).remote, 2)
            before = time.monotonic()
            for number in range(20):
                assert load.offline.remote(number) == number
            warm = time.monotonic() - before
            time.sleep(4)  # the fault itself
            assert not cold.done()
        finally:
            daemon.kill(signal.SIGCONT)
        thawed = time.monotonic()
        assert cold.result(15) == 2
        took = time.monotonic() - thawed
    assert warm < 2
    assert took < 8
    seen(f"20 warm calls in {warm:.2f} s; the cold one {took:.1f} s after the thaw")


@pytest.mark.fault(
    "F57",
    injected="the daemon's socket is moved away, and back",
    expected="what runs serves; a new start fails with words; afterwards it works",
)
def test_f57_its_socket_disappears(host: Host, daemon: PrivateDocker, seen: Seen) -> None:
    assert load.offline.remote(1) == 1
    path = Path(daemon.url.removeprefix("unix://"))
    away = path.with_name("away")
    path.rename(away)
    try:
        assert load.offline.remote(2) == 2
        with pytest.raises(minimodal.Error, match=r"no Docker engine|not answer|d.sock") as caught:
            load.offline.with_options(timeout=51).remote(3)
    finally:
        away.rename(path)
    before = time.monotonic()
    assert _sooner_or_later(lambda: load.offline.with_options(timeout=51).remote(4)) == 4
    seen(f"{str(caught.value)[:90]}; works {time.monotonic() - before:.1f} s after it is back")


@pytest.mark.fault(
    "F55",
    injected="kill -9 of dockerd with calls in its containers, then started again",
    expected="the running call ends well, by itself or retried; new calls work in 10 s",
)
@pytest.mark.fault(
    "F56",
    injected="SIGTERM to dockerd, which ends its containers; started again",
    expected="the running call is retried when it returns",
)
@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGKILL, marks=pytest.mark.slow, id="kill"), signal.SIGTERM],
)
def test_f55_f56_the_daemon_ends_and_comes_back(
    host: Host, daemon: PrivateDocker, number: signal.Signals, seen: Seen
) -> None:
    assert load.offline.remote(1) == 1
    call = load.offline.spawn(5, seconds=3.0)
    live = host.engine.calls[call.object_id]
    while live.slot is None:
        time.sleep(0.01)
    daemon.kill(number)
    daemon.start()
    anyio.run(daemon.wait_answering)
    before = time.monotonic()
    assert _sooner_or_later(lambda: load.offline.remote(2)) == 2
    recovered = time.monotonic() - before
    assert recovered < 15
    assert call.get(timeout=40) == 5
    seen(f"{number.name}: next call {recovered:.1f} s after it answers; attempts {live.losses + 1}")


@pytest.mark.fault(
    "F60",
    injected="the daemon's data root, a small tmpfs, is filled; then a build",
    expected="the error names the full disk; it works again when there is room",
)
def test_f60_its_disk_is_full(host: Host, daemon: PrivateDocker, seen: Seen) -> None:
    image = minimodal.Image.debian_slim().run_commands("head -c 20000000 /dev/urandom > /big")
    function = load.offline.with_options(image=image)
    filler = daemon.directory / "filler"
    free = shutil.disk_usage(daemon.directory).free
    with open(filler, "wb") as file:
        for _ in range(max(0, free - (4 << 20)) >> 20):
            file.write(bytes(1 << 20))
    with pytest.raises(minimodal.Error, match=r"(?i)no space|full|disk") as caught:
        function.remote(1)
    filler.unlink()
    assert _sooner_or_later(lambda: function.remote(2)) == 2
    seen(str(caught.value).strip().splitlines()[0][:100])


def _sooner_or_later(call: Callable[[], int], within: float = 20.0) -> int:
    """Calls that are refused while the breaker waits are made again, as a user would."""
    deadline = time.monotonic() + within
    while True:
        try:
            return call()
        except minimodal.Error:
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.2)
