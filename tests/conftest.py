"""What every test has: a home of its own, the backends that work here, and a check for leftovers.

A test that needs Docker or bubblewrap carries the marker of that name; where it cannot run it skips
with the reason, and fails instead when MINIMODAL_REQUIRE_DOCKER=1 says that an engine must be here.
"""

from __future__ import annotations

import functools
import gc
import os
import shutil
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from minimodal.home import open_home
from tests.faults import table
from tests.leftovers import adopt_orphans, nothing_left
from tests.needs import missing_bubblewrap, missing_docker
from tests.whole import RERUNS, is_whole, left_for_the_rest, workers

# The tests start hundreds of programs: what those import is compiled once, not by each of them.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("ours", deadline=None)  # of one example: the machine may be busy
settings.load_profile("ours")

BACKENDS = [
    "process",
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn; those that cannot work here skip with the reason."""
    return str(request.param)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """What a shell puts in the background has SIGINT ignored, and that is inherited."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if (
        signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ):  # as nohup does; a handler is not inherited
        signal.signal(signal.SIGHUP, lambda number, frame: None)


@pytest.fixture(scope="session", autouse=True)
def scratch() -> Iterator[Path]:
    """A temporary directory with a short name: a Unix socket's path has 107 bytes."""
    adopt_orphans()
    directory = Path(tempfile.mkdtemp(prefix="mmt-", dir="/tmp" if os.path.isdir("/tmp") else None))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def home(scratch: Path) -> Iterator[Path]:
    """`MINIMODAL_HOME` of the whole session, so that no test reads or writes the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in list(os.environ):
            if variable.startswith("MINIMODAL_") and variable != "MINIMODAL_REQUIRE_DOCKER":
                patch.delenv(variable)
        (scratch / "tmp").mkdir()
        patch.setenv("MINIMODAL_HOME", str(scratch / "home"))
        patch.setenv("TMPDIR", str(scratch / "tmp"))
        patch.setattr(tempfile, "tempdir", str(scratch / "tmp"))
        yield scratch / "home"
        if list((scratch / "home").glob("cache/images-in-use/docker-*")):
            from tests.docker_engine import forget_images

            forget_images(open_home(None))


@pytest.fixture(scope="session", autouse=True)
def frozen() -> None:
    """What pytest has collected stays: no later look for garbage has to go through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """httpx makes one for each client, which takes 20 ms, though nobody speaks TLS here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """What a module forgot to close is reported in that module, not wherever garbage is collected."""
    yield
    gc.collect()
    gc.freeze()  # what lives on is looked through once, not after each module


@pytest.fixture(autouse=True)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[None]:
    """Fail the test that leaves a thread, a process, a container or a temporary file behind."""
    docker = request.node.get_closest_marker("docker") is not None
    with nothing_left(docker, "this test"):
        yield


LONGEST = [
    "test_examples.py",
    "test_up.py",
    "test_debugger.py",
    "test_plugin.py",
    "faults/test_images.py",
    "test_load.py",
    "cli/test_image.py",
    "test_surface.py",
    "faults/test_engine.py",
    "test_shell.py",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="each test, on each backend")
    parser.addoption("--rest", action="store_true", help="what a run without options leaves out")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    return workers(config)


def pytest_configure(config: pytest.Config) -> None:
    if is_whole(config) and config.option.reruns is None:
        config.option.reruns = RERUNS


@pytest.hookimpl(trylast=True)  # what is `slow` has gone, and takes no turn
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The files that take longest first: the last one of a run would keep one worker alone."""
    if is_whole(config) and not config.option.all:
        rest = left_for_the_rest(items)
        split: tuple[list[pytest.Item], list[pytest.Item]] = ([], [])
        for item in items:
            split[item in rest].append(item)
        items[:] = split[config.option.rest]
        config.hook.pytest_deselected(items=split[not config.option.rest])
    for item in items:
        table.describe(item)

    def rank(item: pytest.Item) -> int:
        path = item.path.as_posix()
        return next((n for n, name in enumerate(LONGEST) if path.endswith(name)), len(LONGEST))

    items.sort(key=rank)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table.show(terminalreporter, config)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("docker"):
        reason = missing_docker()
        if reason and os.environ.get("MINIMODAL_REQUIRE_DOCKER") == "1":
            pytest.fail(f"MINIMODAL_REQUIRE_DOCKER=1, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)
    if item.get_closest_marker("bubblewrap"):
        reason = missing_bubblewrap()
        if reason:
            pytest.skip(reason)
