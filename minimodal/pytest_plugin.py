"""The pytest plugin: a platform for tests, with nothing of the user's own settings in it.

Loaded by every pytest run where minimodal is installed, so importing it costs nothing: the platform is
imported by the fixtures. The engine has a thread and loop of its own, so the fixtures are plain ones
and tests may be sync, or run on any asyncio loop. `-p no:minimodal` turns it off.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .app import App
    from .clock import ManualClock
    from .container_logs import ContainerLogs
    from .host import Host
    from .leaks import Belongings, Leak

    AppRunner = Callable[[App], App]

SESSION_ENGINE = "minimodal_session_engine"
BEFORE: pytest.StashKey[Belongings] = pytest.StashKey()
HOME: pytest.StashKey[Path] = pytest.StashKey()
CALLS: pytest.StashKey[frozenset[Leak]] = pytest.StashKey()
PLATFORMS: pytest.StashKey[Platforms] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("minimodal")
    group.addoption(
        "--minimodal-backend",
        default="embedded",
        choices=["embedded", "auto", "docker", "bubblewrap", "process"],
        help="where the containers of tests run; embedded: the best that needs no daemon",
    )
    group.addoption(
        "--minimodal-home",
        type=Path,
        help="keep state and built images there, instead of in a temporary directory",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "minimodal_allow_leaks(*kinds): do not fail for what it leaves behind: calls, containers, "
        "processes, threads, files; none named: all",
    )
    platforms = config.stash[PLATFORMS] = Platforms(config)
    config.add_cleanup(platforms.close)


class Platforms:
    """The home of a test session, and what its platforms report. One for each process of xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._environ = {k: v for k, v in os.environ.items() if k.startswith("MINIMODAL_")}
        self.backend: str = config.getoption("--minimodal-backend")
        self._live = config.getoption("capture") == "no"
        given: Path | None = config.getoption("--minimodal-home")
        worker = os.environ.get("PYTEST_XDIST_WORKER", "")
        self._temporary = given is None
        self.home = given.absolute() / worker if given else Path(tempfile.mkdtemp(prefix="mmt-"))
        self.logs: ContainerLogs | None = None
        self.session_engine = False
        self._tests = 0
        if self._environ:
            _forget_settings(self._environ)
        # For what starts a platform by itself: a plain .remote(), or `minimodal run` as a subprocess.
        os.environ.update(MINIMODAL_HOME=str(self.home), MINIMODAL_BACKEND=self.backend)

    def close(self) -> None:
        for name in ("MINIMODAL_HOME", "MINIMODAL_BACKEND"):
            os.environ.pop(name, None)
        os.environ.update(self._environ)
        if self._temporary:
            _remove(self.home)

    def new_home(self) -> Path:
        """State for one test; what is built is shared by all."""
        self._tests += 1
        home = self.home / f"t{self._tests}"
        home.mkdir(parents=True)
        (self.home / "cache").mkdir(exist_ok=True, mode=0o700)
        (home / "cache").symlink_to(self.home / "cache")
        return home

    def watch(self, host: Host) -> None:
        """Keep what its containers print, for the report of a test that fails."""
        from .container_logs import ContainerLogs

        if self.logs is None:
            self.logs = ContainerLogs()
        host.subscribe(self.logs.event)
        if self._live:
            from .output import Printer

            host.subscribe(Printer().event)


def _remove(directory: Path) -> None:
    from .images.layer_store import remove_tree

    with suppress(OSError):  # what is not ours stays in the temporary directory
        remove_tree(directory)


def _forget_settings(environ: dict[str, str]) -> None:
    """The user's settings are not the tests'; what is no setting may be meant for them."""
    from .config import settings

    for name, _ in settings():
        if f"MINIMODAL_{name.upper()}" in environ:
            del os.environ[f"MINIMODAL_{name.upper()}"]


# --- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def minimodal_session_engine(request: pytest.FixtureRequest) -> Iterator[Host]:
    """One platform for the whole session: apps that stay open keep their containers warm."""
    from .host import warm_up
    from .leaks import Belongings
    from .testing import running_platform

    platforms = request.config.stash[PLATFORMS]
    warm_up()
    before = Belongings.now()
    with running_platform(platforms.home, platforms.backend) as host:
        platforms.watch(host)
        platforms.session_engine = True
        yield host
    platforms.session_engine = False
    _fail_for(before.left_behind(), "the session's engine")


@pytest.fixture
def minimodal_engine(request: pytest.FixtureRequest) -> Iterator[Host]:
    """A platform of the test's own: no deployed app, volume, secret or call of another test."""
    from .host import warm_up
    from .leaks import Belongings
    from .testing import running_platform

    platforms = request.config.stash[PLATFORMS]
    clock = None
    if "minimodal_clock" in request.fixturenames:
        clock = request.getfixturevalue("minimodal_clock")
    warm_up()
    request.node.stash[BEFORE] = Belongings.now()
    home = request.node.stash[HOME] = platforms.new_home()
    with running_platform(home, platforms.backend, clock=clock) as host:
        platforms.watch(host)
        yield host


@pytest.fixture
def minimodal_app(request: pytest.FixtureRequest) -> Iterator[AppRunner]:
    """`minimodal_app(app)` runs an app until the test ends, and gives it back.

    On the session's engine where the test asks for `minimodal_session_engine` too, else on one of its
    own.
    """
    session = SESSION_ENGINE in request.fixturenames
    request.getfixturevalue(SESSION_ENGINE if session else "minimodal_engine")
    with ExitStack() as stack:

        def run(app: App) -> App:
            return stack.enter_context(app.run())

        yield run


@pytest.fixture
def minimodal_gateway(request: pytest.FixtureRequest) -> str:
    """The URL of the gateway, on a free port, for the web endpoints of apps that run.

    Of the session's engine where the test asks for `minimodal_session_engine` too.
    """
    session = SESSION_ENGINE in request.fixturenames
    host: Host = request.getfixturevalue(SESSION_ENGINE if session else "minimodal_engine")
    return host.open_gateway()


@pytest.fixture
def minimodal_clock() -> ManualClock:
    """The clock of this test's engine; it stands still until `testing.advance` moves it.

    Schedules and the dates that are kept go by it. Waiting (timeouts, retries) is done in real time.
    """
    from .clock import ManualClock

    return ManualClock()


@pytest.fixture
def minimodal_logs(request: pytest.FixtureRequest) -> ContainerLogs:
    """What the test's containers print."""
    from .container_logs import ContainerLogs

    platforms = request.config.stash[PLATFORMS]
    if platforms.logs is None:
        platforms.logs = ContainerLogs()
    return platforms.logs


# --- reports and leaks ----------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    logs = item.config.stash[PLATFORMS].logs
    if logs is not None:
        logs.clear()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    if SESSION_ENGINE in getattr(item, "fixturenames", ()):
        item.stash[CALLS] = _unfinished()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    logs = item.config.stash[PLATFORMS].logs
    if report.failed and logs is not None and logs.shown:
        report.sections.append((f"Captured containers {report.when}", "\n".join(logs.shown)))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    calls = item.stash.get(CALLS, None)
    left: list[Leak] = []
    if calls is not None:
        left += _leaked_calls(calls)
    yield
    before = item.stash.get(BEFORE, None)
    if before is not None:
        left += before.left_behind()
        if item.config.stash[PLATFORMS].session_engine:  # its containers come and go meanwhile
            left = [leak for leak in left if leak.kind not in ("processes", "files")]
        if not left:
            _remove(item.stash[HOME])
        logs = item.config.stash[PLATFORMS].logs
        left += logs.living() if logs is not None and calls is None else []
    allowed = [mark.args for mark in item.iter_markers("minimodal_allow_leaks")]
    if () in allowed:
        return
    kinds = {kind for kinds in allowed for kind in kinds}
    _fail_for([leak for leak in left if leak.kind not in kinds], "this test")


def _unfinished() -> frozenset[Leak]:
    """The calls that the session's engine has."""
    from .leaks import Leak
    from .testing import _engine, _in_loop

    engine = _engine()
    return _in_loop(
        engine,
        lambda: frozenset(
            Leak("calls", f"{live.call.id} of {live.pool.name} is {live.state.value}")
            for live in engine.calls.values()
            if live.outcome is None
        ),
    )


def _leaked_calls(before: frozenset[Leak]) -> list[Leak]:
    """Calls that still run, which would disturb the next test: they are cancelled."""
    from .leaks import patiently
    from .testing import _engine, _in_loop

    left = patiently(lambda: _unfinished() - before)
    engine = _engine()
    for leak in left:
        call_id = leak.what.partition(" ")[0]
        _in_loop(engine, lambda call_id=call_id: engine.cancel(call_id))  # type: ignore[misc]
    return left


def _fail_for(left: list[Leak], who: str) -> None:
    if left:
        lines = "\n".join(f"  {leak}" for leak in left)
        pytest.fail(f"left behind by {who}:\n{lines}", pytrace=False)
