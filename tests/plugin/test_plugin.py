"""The pytest plugin as its users have it: test runs of a project of their own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.plugin.conftest import ROOT, Project

pytest_plugins = ["pytester"]

needs_xdist = pytest.mark.skipif(
    importlib.util.find_spec("xdist") is None, reason="pytest-xdist is not installed"
)


def test_plain_tests_have_a_platform_each(project: Project) -> None:
    result = project.run(
        """
        homes = []

        def test_an_app_runs(minimodal_app, minimodal_logs):
            assert minimodal_app(app) is app
            assert double.remote(21) == 42
            assert minimodal_logs.wait_for("doubling 21") == ["doubling 21"]
            homes.append(os.environ["MINIMODAL_HOME"])

        def test_without_run(minimodal_engine, minimodal_logs):
            assert minimodal_logs.lines == []
            assert list(double.map(range(3))) == [0, 2, 4]
            homes.append(os.environ["MINIMODAL_HOME"])

        def test_nothing_is_shared():
            one, other = homes
            assert one != other and not os.path.exists(one)
            assert not os.environ["MINIMODAL_HOME"].startswith(str(pathlib.Path.home()))

        def test_the_clock_is_the_engines(minimodal_clock, minimodal_engine):
            assert minimodal_engine.engine.clock is minimodal_clock
            before = minimodal_engine.engine.clock.now()
            testing.advance(minimodal_clock, 3600)
            assert minimodal_engine.engine.clock.now() == before + 3600

        def test_web(minimodal_app, minimodal_gateway):
            minimodal_app(web)
            with urllib.request.urlopen(hello.get_web_url()) as response:
                assert json.load(response) == {"hello": "you"}
            assert hello.get_web_url().startswith(minimodal_gateway.rstrip("/"))

        def test_embedded(minimodal_engine):
            assert minimodal_engine.engine.backend.name in ("bubblewrap", "process")
        """
    )
    result.assert_outcomes(passed=6)


def test_one_platform_for_the_session(project: Project) -> None:
    result = project.run(
        """
        engines = []

        @pytest.fixture(scope="module")
        def running(minimodal_session_engine):
            with app.run():
                yield minimodal_session_engine

        @pytest.mark.parametrize("x", range(3))
        def test_warm(running, x):
            assert double.remote(x) == 2 * x
            [pool] = [pool for pool in running.engine.pools.values() if pool.sessions]
            engines.append((running, pool.sessions[0].id))
            assert len(set(engines)) == 1

        other = minimodal.App("other")

        @other.function(serialized=True)  # this module needs pytest, which no container has
        def triple(x):
            return 3 * x

        def test_an_app_on_it(minimodal_app, minimodal_session_engine):
            minimodal_app(other)
            assert minimodal_session_engine is engines[0][0]
            assert triple.remote(2) == 6
        """
    )
    result.assert_outcomes(passed=4)


def test_faults(project: Project) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module", autouse=True)
        def running(minimodal_session_engine):
            with app.run():
                yield

        @pytest.mark.parametrize("kill", [testing.kill_container, testing.kill_executor])
        def test_a_call_survives(kill, minimodal_session_engine):
            kill(double)
            assert double.remote(4) == 8
            stopped = [e for e in minimodal_session_engine.engine.events.since(0)
                       if e.kind == "container.stopped" and not e.fields["asked"]]
            assert len(stopped) == 1  # an executor is replaced within its container

        @pytest.mark.parametrize("kill", [testing.kill_container, testing.kill_executor])
        def test_the_call_that_runs(kill, minimodal_logs):
            call = endless.spawn()
            minimodal_logs.wait_for("begun")
            minimodal_logs.clear()
            kill(endless)
            minimodal_logs.wait_for("begun")
            call.cancel()

        def test_an_error_is_raised_here():
            testing.fail_next(double, ValueError("broken"))
            with pytest.raises(ValueError, match="broken"):
                double.remote(1)
            assert double.remote(1) == 2

        def test_retries_count_it():
            testing.fail_next(steady, ConnectionError)
            assert steady.remote(5) == 5
            testing.fail_next(steady, ConnectionError, times=2)
            with pytest.raises(ConnectionError):
                steady.remote(5)

        def test_of_a_spawned_call():
            testing.fail_next(double, KeyError("gone"))
            call = double.spawn(3)
            with pytest.raises(KeyError, match="gone"):
                call.get()
        """
    )
    result.assert_outcomes(passed=7)


def test_the_report_of_a_failure_has_what_the_containers_printed(project: Project) -> None:
    result = project.run(
        """
        def test_earlier(minimodal_app):
            minimodal_app(app)
            assert double.remote(1) == 2

        def test_wrong(minimodal_app):
            minimodal_app(app)
            assert double.remote(20) == 41
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Captured containers call*", "double | doubling 20"])
    result.stdout.no_fnmatch_line("*doubling 1")


def test_without_capture_it_is_shown_live(project: Project) -> None:
    result = project.run(
        """
        def test_right(minimodal_app):
            minimodal_app(app)
            assert double.remote(20) == 40
        """,
        "-s",
    )
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*doubling 20"])


def test_what_a_test_leaves_behind_fails_it(project: Project) -> None:
    result = project.run(
        """
        import subprocess, sys
        from minimodal import leaks

        kept = []
        leaks.PATIENCE = 0.1

        def test_a_file(minimodal_engine):
            kept.append(open(__file__))

        def test_a_process(minimodal_engine):
            kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

        def test_a_platform(minimodal_engine):
            from minimodal.host import Host
            kept.append(Host().start())

        @pytest.mark.minimodal_allow_leaks("files")
        def test_allowed(minimodal_engine):
            kept.append(open(__file__))

        def test_a_call(minimodal_session_engine):
            endless.spawn()

        def test_nothing(minimodal_session_engine, minimodal_engine):
            double.remote(1)

        def test_last():
            kept[2].stop()
            kept[1].stdin.close()
            kept[1].wait()
            for each in (kept[0], kept[3]):
                each.close()
        """,
    )
    result.assert_outcomes(passed=7, errors=4)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_a_file*",
            "left behind by this test:",
            "  files: * *test_it.py",
            "*ERROR at teardown of test_a_process*",
            "*  processes: * *",
            "*ERROR at teardown of test_a_platform*",
            "  threads: minimodal-engine *",
            "*ERROR at teardown of test_a_call*",
            "  calls: fc-* of endless is *",
        ]
    )


ASYNC = """
MARK

async def test_await(minimodal_app):
    minimodal_app(app)
    assert await double.remote.aio(2) == 4
    assert [x async for x in double.map.aio(range(3))] == [0, 2, 4]

async def test_blocking_in_the_loop(minimodal_engine):
    assert double.remote(3) == 6

async def test_async_with(minimodal_session_engine):
    async with app.run():
        assert await double.remote.aio(2) == 4
"""


ANYIO = """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def test_under_pytest_asyncio(project: Project) -> None:
    session_loops = """
        @pytest.mark.asyncio(loop_scope="session")
        async def test_another_loop(minimodal_session_engine):
            assert await double.remote.aio(3) == 6

        @pytest.mark.filterwarnings('default')
        def test_sync_beside_it(minimodal_session_engine):
            assert double.remote(3) == 6
        """
    tests = ASYNC.replace("MARK", "pytestmark = pytest.mark.asyncio")
    result = project.run(tests + textwrap.dedent(session_loops))
    result.assert_outcomes(passed=5)


def test_under_the_plugin_of_anyio(project: Project) -> None:
    tests = ASYNC.replace("MARK", ANYIO)
    result = project.run(tests, "-p", "no:asyncio", "-p", "anyio")
    result.assert_outcomes(passed=3)


@needs_xdist
def test_each_worker_of_xdist_has_a_home(project: Project, scratch: Path) -> None:
    kept = scratch / "kept"  # short: sockets lie in it
    result = project.run(
        """
        @pytest.mark.parametrize("n", range(2))
        def test_it(minimodal_session_engine, n, worker_id):
            place = pathlib.Path(os.environ["MINIMODAL_HOME"])
            assert place.name == worker_id and place.parent.name == "kept"
            assert double.remote(n) == 2 * n
        """,
        "-n2",
        f"--minimodal-home={kept}",
    )
    result.assert_outcomes(passed=2)
    assert {each.name for each in kept.iterdir()} == {"gw0", "gw1"}


def test_settings_of_the_user_do_not_count(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MINIMODAL_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("MINIMODAL_BACKEND", "docker")
    monkeypatch.setenv("MINIMODAL_CPU_BUDGET", "0.001")
    monkeypatch.setenv("MINIMODAL_SECRET_KEY", "kept")
    (project.pytester.path / ".env").write_text("MINIMODAL_BACKEND=docker\n")
    result = project.run(
        """
        def test_ambient():  # without any fixture
            from minimodal import host
            assert double.remote(1) == 2
            host._ambient.stop()

        def test_fixture(minimodal_engine):
            assert double.remote(1) == 2
            assert os.environ["MINIMODAL_SECRET_KEY"] == "kept"
        """,
        "--minimodal-backend=process",
    )
    result.assert_outcomes(passed=2)
    assert not (tmp_path / "mine").exists()


def test_it_can_be_turned_off(project: Project) -> None:
    result = project.run("def test_it(minimodal_engine): pass", "-p", "no:minimodal")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'minimodal_engine' not found*"])


def test_importing_it_is_light() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import minimodal.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=True, cwd=ROOT
    )
    assert result.stdout.split() == ["minimodal", "minimodal.pytest_plugin"]


def test_the_example(project: Project) -> None:
    for name in ("hello.py", "test_with_pytest.py"):
        shutil.copy(ROOT / "examples" / name, project.pytester.path)
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=50)
    result.assert_outcomes(passed=6)
