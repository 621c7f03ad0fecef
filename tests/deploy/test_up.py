"""`minimodal deploy` and `minimodal up`: versions, restarts, and no call lost in between."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import minimodal
from minimodal import context
from minimodal.cli.engines import ask
from minimodal.config import load_config
from minimodal.errors import CallCancelled, NotFoundError
from minimodal.host import Host
from tests.cli.conftest import Program
from tests.deploy.program import Running, running
from tests.deploy.shop import edit


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return edit(tmp_path / "shop.py", 1)


@pytest.fixture
def deploy(program: Program, own_home: Path, script: Path) -> None:
    done = program("deploy", "shop.py", MINIMODAL_HOME=str(own_home))
    assert done.returncode == 0, done.stderr


@pytest.fixture
def up(deploy: None, own_home: Path) -> Iterator[Running]:
    with running(own_home, "up") as program:
        program.wait_for("Ready in")
        yield program


def version() -> int:
    found: int = minimodal.Function.from_name("shop", "version").remote()
    return found


def test_up_serves_what_is_deployed(up: Running) -> None:
    assert version() == 1
    assert minimodal.Cls.from_name("shop", "Till")(drawer="left").look.remote() == "left 1"
    assert context.running_client() is None, "no engine was started here"


def test_f38_a_second_up_is_refused_with_the_pid_of_the_first(
    up: Running, program: Program, own_home: Path
) -> None:
    second = program("up", MINIMODAL_HOME=str(own_home))
    assert second.returncode == 1
    assert f"pid {up.process.pid}" in second.stderr
    assert version() == 1


def test_up_ends_with_130_and_without_a_traceback(up: Running) -> None:
    assert version() == 1
    up.process.send_signal(signal.SIGINT)
    up.wait_for("stopping")
    assert up.process.wait(timeout=20) == 130
    assert not any("Traceback" in line for line in up.said)


def test_a_new_version_serves_at_once_and_running_calls_finish_on_the_old(
    up: Running, program: Program, own_home: Path, script: Path, tmp_path: Path
) -> None:
    meet = minimodal.Function.from_name("shop", "meet")
    gate = tmp_path / "gate"
    early = meet.spawn(str(gate))
    while not Path(f"{gate}.1.ready").exists():
        time.sleep(0.01)  # functions in containers speak through files
    edit(script, 2)
    done = program("deploy", "shop.py", "--tag", "better", MINIMODAL_HOME=str(own_home))
    assert done.returncode == 0, done.stderr
    assert version() == 2
    assert minimodal.Cls.from_name("shop", "Till")(drawer="x").look.remote() == "x 2"
    late = meet.spawn(str(gate))
    gate.touch()
    assert (early.get(timeout=20), late.get(timeout=20)) == (1, 2)


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Four threads repeat `work` during the block; all that it raises fails the test."""
    problems: list[BaseException] = []
    done = threading.Event()

    def repeat() -> None:
        while not done.is_set():
            try:
                work()
            except BaseException as error:
                problems.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert problems == []


@pytest.mark.long
def test_f86_no_call_is_lost_while_five_versions_are_deployed(
    up: Running, program: Program, own_home: Path, script: Path
) -> None:
    slow = minimodal.Function.from_name("shop", "slow")
    till = minimodal.Cls.from_name("shop", "Till")(drawer="d")
    answers: Counter[int] = Counter()

    def call() -> None:
        answers[slow.remote(0.005)] += 1
        answers[int(till.look.remote().split()[1])] += 1
        answers.update(slow.map([0.0] * 5))

    with meanwhile(call):
        for number in range(2, 7):
            edit(script, number)
            deployed = program("deploy", "shop.py", MINIMODAL_HOME=str(own_home))
            assert deployed.returncode == 0, deployed.stderr
            assert version() == number
    assert set(answers) >= {1, 2, 3, 4, 5}, answers


def test_f86_no_request_is_lost_while_versions_are_deployed(
    up: Running, program: Program, own_home: Path, script: Path
) -> None:
    url = minimodal.Function.from_name("shop", "page").get_web_url()
    assert url is not None
    answers: Counter[tuple[int, str]] = Counter()
    with httpx.Client(timeout=30) as client:

        def visit() -> None:
            answer = client.get(url)
            answers[answer.status_code, answer.text] += 1

        with meanwhile(visit):
            for number in range(2, 5):
                edit(script, number)
                deployed = program("deploy", "shop.py", MINIMODAL_HOME=str(own_home))
                assert deployed.returncode == 0, deployed.stderr
                assert httpx.get(url).json() == {"version": number}
    assert {status for status, _ in answers} == {200}, answers
    assert len(answers) >= 3, answers


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("\nimport nowhere", "nowhere"),
        ("\nif not minimodal.is_local(): raise OSError('no disk here')", "no disk here"),
        ("\nsyntax error", "SyntaxError"),
    ],
)
def test_f86_a_version_that_does_not_start_changes_nothing(
    up: Running, program: Program, own_home: Path, script: Path, more: str, said: str
) -> None:
    assert version() == 1
    edit(script, 2, more)
    done = program("deploy", "shop.py", MINIMODAL_HOME=str(own_home))
    assert done.returncode == 1
    assert said in done.stderr
    assert version() == 1
    history = program("app", "history", "shop", "--json", MINIMODAL_HOME=str(own_home))
    assert len(json.loads(history.stdout)["versions"]) == 1


def test_calls_survive_the_death_of_up(up: Running, own_home: Path, tmp_path: Path) -> None:
    meet = minimodal.Function.from_name("shop", "meet")
    gate = tmp_path / "gate"
    calls = [meet.spawn(str(gate)) for _ in range(3)]
    while not Path(f"{gate}.1.ready").exists():
        time.sleep(0.01)
    up.process.kill()
    up.process.wait()
    gate.touch()
    with running(own_home, "up") as again:
        again.wait_for("Ready in")
        assert [call.get(timeout=30) for call in calls] == [1, 1, 1]
        assert version() == 1


@pytest.mark.parametrize("finishes", [True, False])
def test_up_drains_when_it_is_terminated(
    up: Running, own_home: Path, tmp_path: Path, finishes: bool, program: Program
) -> None:
    """What runs gets its time; what is not done by then is handed back, and runs under the next."""
    gate = tmp_path / "gate"
    call = minimodal.Function.from_name("shop", "meet").spawn(str(gate))
    while not Path(f"{gate}.1.ready").exists():
        time.sleep(0.01)
    up.process.terminate()
    if finishes:
        gate.touch()
        assert up.process.wait(timeout=20) == 143
    else:
        with pytest.raises(subprocess.TimeoutExpired):
            up.process.wait(timeout=1)  # it waits for the call
        up.process.terminate()  # again: now
        assert up.process.wait(timeout=20) == 143
        gate.touch()
    shown = program("calls", "show", call.object_id, "--json", MINIMODAL_HOME=str(own_home))
    assert json.loads(shown.stdout)["call"]["state"] == ("ok" if finishes else "running")
    with running(own_home, "up") as again:
        again.wait_for("Ready in")
        assert call.get(timeout=30) == 1


def test_calls_cancel(up: Running, program: Program, own_home: Path, tmp_path: Path) -> None:
    call = minimodal.Function.from_name("shop", "meet").spawn(str(tmp_path / "never"))
    done = program("calls", "cancel", call.object_id, MINIMODAL_HOME=str(own_home))
    assert done.returncode == 0, done.stderr
    with pytest.raises(CallCancelled):
        call.get(timeout=20)


def test_roll_back_and_stop(up: Running, program: Program, own_home: Path, script: Path) -> None:
    edit(script, 2)
    home = {"MINIMODAL_HOME": str(own_home)}
    assert program("deploy", "shop.py", **home).returncode == 0
    assert version() == 2
    assert "version 3" in program("app", "rollback", "shop", **home).stderr
    assert version() == 1
    assert program("app", "stop", "shop", **home).returncode == 0
    with pytest.raises(NotFoundError):
        version()
    listed = program("app", "list", **home).stdout
    assert "stopped" in listed
    assert program("app", "rollback", "shop", "2", **home).returncode == 0
    assert version() == 2


def test_up_notices_what_is_done_without_it(up: Running, own_home: Path) -> None:
    """By a process that was about to deploy when `up` started."""
    assert version() == 1
    with Host(load_config({"backend": "process", "home": own_home})) as host:
        ask(host.client, "app.stop", app="shop")
    up.wait_for("stopped shop")


def test_f103_a_home_that_is_removed_ends_up(up: Running, own_home: Path) -> None:
    """F103: the path is named, within seconds."""
    shutil.rmtree(own_home)
    assert up.process.wait(timeout=15) == 1
    said = up.rest()
    assert any(str(own_home) in line for line in said), said
