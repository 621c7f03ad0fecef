"""A spawned call survives the SIGKILL of its engine: nothing is lost, nothing ends twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import minimodal
from minimodal.config import load_config
from minimodal.engine import durable
from minimodal.errors import CallCancelled, CallLost, NotFoundError
from minimodal.host import Host

SCRIPT = Path(__file__).parent / "script.py"


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "MINIMODAL_HOME": str(home), "MINIMODAL_BACKEND": "process"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kill_when_it_spoke(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    line = process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    return line.split()


@pytest.fixture
def own_home(scratch: Path, request: pytest.FixtureRequest) -> Path:
    """A home of the test's own, with a short path."""
    return scratch / request.node.name[5:25]


def test_f28_calls_survive_sigkill(own_home: Path, tmp_path: Path) -> None:
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    ids = kill_when_it_spoke(start(own_home, "work", str(marks), str(gate)))
    assert len(ids) == 6
    before = Counter(marks.read_text().split())
    gate.touch()
    with Host(load_config({"backend": "process", "home": own_home})):
        calls = [minimodal.FunctionCall.from_id(call_id) for call_id in ids]
        assert [call.get(timeout=40) for call in calls] == [0, 10, 20, 30, 40, 50]
    after = Counter(marks.read_text().split())
    assert after["0"] == before["0"] == 1, "what had finished does not run again"
    assert after["1"] == before["1"] == 1
    assert all(after[str(i)] >= 1 for i in range(2, 6))
    assert max(after.values()) <= 2


def test_results_are_readable_after_a_restart(own_home: Path, tmp_path: Path) -> None:
    marks, gate = tmp_path / "marks", tmp_path / "gate"
    gate.touch()
    ids = kill_when_it_spoke(start(own_home, "work", str(marks), str(gate)))
    for _ in range(2):
        with Host(load_config({"backend": "process", "home": own_home})):
            assert minimodal.FunctionCall.from_id(ids[0]).get(timeout=20) == 0
            with pytest.raises(NotFoundError):
                minimodal.FunctionCall.from_id("fc-ffff").get()


def test_f41_a_call_that_kills_its_engine_ends_in_the_dead_letters(
    own_home: Path, tmp_path: Path
) -> None:
    """F41: three losses, counted on record, and then nobody runs it again."""
    marks = tmp_path / "marks"
    process = start(own_home, "kill", str(marks), "-")
    assert process.stdout is not None
    [call_id] = process.stdout.readline().split()
    process.stdout.close()
    assert process.wait(timeout=30) == -9
    # The next engines are other processes with another pid: the call finds nobody to kill, so the
    # loss is seen as that of its engine, four times.
    environment = {**os.environ, "MINIMODAL_HOME": str(own_home), "MINIMODAL_BACKEND": "process"}
    code = "from minimodal.host import Host; import time; Host().start(); print(flush=True); time.sleep(60)"
    for runs in (1, 2, 3):
        again = subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
        )
        while marks.read_text().count("killed") == runs:
            assert again.poll() is None, "the engine takes the call over and runs it"
        again.kill()
        again.communicate()
    with Host(load_config({"backend": "process", "home": own_home})) as host:
        call: minimodal.FunctionCall[None] = minimodal.FunctionCall.from_id(call_id)
        with pytest.raises(minimodal.Error, match="died"):
            call.get(timeout=20)
        assert host.engine is not None
    assert marks.read_text().count("killed") == 4


def test_dead_letters_are_looked_at_retried_and_purged(own_home: Path) -> None:
    from tests.deploy import functions

    with Host(load_config({"backend": "process", "home": own_home})):
        functions.app.deploy()
        for _ in range(3):
            with pytest.raises(TypeError):
                functions.double.spawn("a", b="c").get(timeout=30)  # type: ignore[call-arg]
        letters = minimodal.DeadLetter.list()
        assert [letter.function for letter in letters] == ["shop/double"] * 3
        assert letters == minimodal.DeadLetter.list(function="shop/double")
        assert minimodal.DeadLetter.list(function="shop/other") == []
        first = minimodal.DeadLetter.from_id(letters[0].call_id)
        assert first.input() == (("a",), {"b": "c"})
        assert first.error.startswith("TypeError: ")
        [attempt] = first.attempts()
        assert (attempt.number, attempt.lost) == (1, False)
        assert "TypeError" in attempt.traceback
        with pytest.raises(TypeError):
            first.retry().get(timeout=30)
        with pytest.raises(NotFoundError):
            first.retry()
        assert len(minimodal.DeadLetter.list()) == 3, "its successor took its place"
        letters[1].purge()
        for call in minimodal.DeadLetter.retry_all(function="shop/double"):
            with pytest.raises(TypeError):
                call.get(timeout=30)
        assert minimodal.DeadLetter.purge_all() == 2
        assert minimodal.DeadLetter.list() == []


def test_leaving_the_app_cancels_what_was_spawned(own_home: Path, tmp_path: Path) -> None:
    from tests.durability import script

    gate = tmp_path / "never"
    with Host(load_config({"backend": "process", "home": own_home})):
        with script.app.run():
            call = script.work.spawn(5, str(tmp_path / "marks"), str(gate))
        with pytest.raises(CallCancelled):
            call.get(timeout=20)


together = minimodal.App("together")


@together.function(serialized=True, max_containers=1)
@minimodal.concurrent(max_inputs=2)
async def waits() -> None:
    await asyncio.sleep(60)


def test_who_waits_for_a_call_that_is_handed_on_is_told(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "STOPPED_WITHIN", 30.0)
    with ThreadPoolExecutor(1) as threads:
        with Host(load_config({"backend": "process", "home": own_home})) as host:
            together.deploy()
            kept = waits.spawn()
            attached = threads.submit(waits.remote)
            while host.running_of("waits") < 2:
                time.sleep(0.01)  # nobody tells
            began = time.monotonic()
        assert time.monotonic() - began < 10
        with pytest.raises(
            CallLost, match="goes on with waits"
        ):  # it is on record: one of a deployed app
            attached.result(10)
    with Host(load_config({"backend": "process", "home": own_home})):
        with pytest.raises(TimeoutError):
            kept.get(timeout=0)
        kept.cancel()
