"""A Docker engine in a virtual machine or on another host: the local one, of which nothing is mounted."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

import minimodal
from minimodal import errors
from minimodal.backends import docker
from minimodal.config import load_config
from minimodal.host import Host
from tests.core import functions as f
from tests.leftovers import nothing_left

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def far(home: Path) -> Iterator[Host]:
    with nothing_left(docker=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(docker, "is_local", lambda info: False)
        with Host(load_config({"backend": "docker"})) as host, f.app.run():
            yield host


@pytest.fixture(autouse=True)
def leaves_nothing(far: Host) -> None:
    """Warm containers outlive a test: see `far`."""


def test_calls_of_all_kinds() -> None:
    assert f.square.remote(3) == 9
    assert list(f.square.map(range(200))) == [n * n for n in range(200)]
    assert list(f.count.remote_gen(1000)) == list(range(1000))
    assert f.square.spawn(4).get() == 16
    with pytest.raises(f.Custom) as caught:
        f.fails.remote(7)
    assert caught.value.why == "because"


def test_large_values_go_both_ways() -> None:
    data = os.urandom(5 << 20)
    assert f.echo.remote(data) == data


def test_what_a_function_prints_is_no_part_of_the_conversation() -> None:
    f.prints.remote(2000)  # also to descriptor 1, which the conversation travels on
    assert f.square.remote(4) == 16


def test_a_killed_executor_and_a_nested_call() -> None:
    with pytest.raises(errors.CallLost):
        f.ends_process.remote("os._exit")
    assert f.sum_of_squares.remote(5) == 30


@pytest.mark.long
def test_a_hostile_container_harms_only_itself(far: Host) -> None:
    """It writes on the stream that its relay speaks on."""
    app = minimodal.App("hostile")

    @app.function(serialized=True)
    def interrupts() -> None:
        def is_relay(pid: str) -> bool:
            words = open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0")
            return b"init" not in words[0] and any(word.endswith(b"relay.py") for word in words)

        relay = next(p for p in os.listdir("/proc") if p.isdigit() and is_relay(p))
        with open(f"/proc/{relay}/fd/1", "wb", buffering=0) as stream:
            stream.write(b"\xff" * 4096)
        time.sleep(60)

    with app.run(), pytest.raises(errors.CallLost):
        interrupts.remote()
    assert f.square.remote(5) == 25


def test_directories_of_the_image_stay_as_they_are(tmp_path: Path) -> None:
    """/tmp has a mode of its own, and /var/run is a link."""
    (tmp_path / "word").write_text("given")
    app, image = minimodal.App("above"), minimodal.Image.debian_slim()
    for target in ("/tmp/word", "/var/run/below/word"):
        image = image.add_local_file(tmp_path / "word", target)

    @app.function(image=image, serialized=True)
    def modes() -> list[str]:
        words = [Path(p).read_text() for p in ("/tmp/word", "/run/below/word")]
        return [*words, *(oct(os.lstat(p).st_mode) for p in ("/tmp", "/var/run", "/run/below"))]

    with app.run():
        assert modes.remote() == ["given", "given", "0o41777", "0o120777", "0o40755"]


def test_a_sandbox_with_processes_files_and_a_way_in() -> None:
    command = ("python3", "-m", "http.server", "8000")
    box = minimodal.Sandbox.create(*command, unencrypted_ports=[8000], timeout=120)
    process = box.exec("sh", "-c", "cat; exit 3")
    process.stdin.write("given")
    process.stdin.write_eof()
    process.stdin.drain()
    assert (process.stdout.read(), process.wait()) == ("given", 3)
    with box.open("/tmp/word", "w") as file:
        file.write("kept")
    with box.open("/tmp/word") as file:
        assert file.read() == "kept"
    with urlopen(box.tunnels()[8000].url, timeout=20) as answer:
        assert answer.status == 200
    box.terminate()
    box.wait(raise_on_termination=False)


@pytest.fixture
def no_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes that are directories of this machine would be copied too: gigabytes, perhaps."""
    for variable in list(os.environ):
        if variable.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("no_indexes")
def test_images_are_built_there() -> None:
    """What a step takes of this machine is copied there, and stays in no image."""
    made = str(time.time())
    image = minimodal.Image.debian_slim().run_commands(f"echo {made} > /made")
    app = minimodal.App("built")

    @app.function(image=image.run_function(f.notes, args=("noted",)), serialized=True)
    def looks() -> list[str]:
        left = [name for name in os.listdir("/") if "minimodal" in name]
        return [Path("/made").read_text().strip(), Path("/noted").read_text(), *left]

    with app.run():
        assert looks.remote() == [made, "noted"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_packages_are_installed_there(tmp_path: Path) -> None:
    """By a uv that pip has installed there."""
    (tmp_path / "needed.txt").write_text("six\n")
    image = minimodal.Image.debian_slim().run_commands(f"echo {time.time()}")
    image = image.pip_install_from_requirements(str(tmp_path / "needed.txt"))
    app = minimodal.App("installed")

    @app.function(image=image, serialized=True)
    def looks() -> str:
        import six

        return str(six.__name__)

    with app.run():
        assert looks.remote() == "six"


@pytest.mark.usefixtures("no_indexes")
def test_what_such_an_engine_cannot_do_is_said() -> None:
    app = minimodal.App("far")
    volume = minimodal.Volume.from_name("far", create_if_missing=True)

    @app.function(volumes={"/data": volume}, serialized=True)
    def writes() -> None: ...

    fills = minimodal.Image.debian_slim().run_function(
        f.notes, args=("",), volumes={"/data": volume}
    )

    @app.function(image=fills, serialized=True)
    def installs() -> None: ...

    with (
        pytest.raises(errors.ImageBuildError, match="another machine or in a virtual one"),
        app.run(),
    ):
        pass
    del app.registered_functions["installs"]
    with app.run(), pytest.raises(errors.LaunchError, match=r"mounts /data to write to it"):
        writes.remote()
