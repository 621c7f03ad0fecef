"""The engine process is killed, frozen, interrupted, or fails by itself: F28-F43."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import minimodal
from minimodal.config import load_config
from minimodal.engine_lock import live_engines
from minimodal.errors import CallCancelled
from minimodal.home import Home
from minimodal.host import Host
from tests.faults.processes import HostProcess, descendants_of

Seen = Callable[[str], None]
SCRIPT = Path(__file__).with_name("engine_script.py")
ISOLATED = [
    "process",
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


class EngineProcess:
    """The script of this folder in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def hear(self) -> list[Any]:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it ended with {self.process.wait(10)}: {self.errors()}"
        words: list[Any] = json.loads(line)
        return words

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Close its input, which ends it, and give the exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(20)


@contextmanager
def engine(home: Home, backend: str, *arguments: str) -> Iterator[EngineProcess]:
    environment = {
        **os.environ,
        "MINIMODAL_HOME": str(home.state.parent),
        "MINIMODAL_BACKEND": backend,
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=environment,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        text=True,
    ) as process:
        try:
            yield EngineProcess(process)
        finally:
            process.kill()


def config(home: Home, backend: str) -> Any:
    return load_config({"backend": backend, "home": home.state.parent})


@pytest.mark.parametrize("backend", ISOLATED)
@pytest.mark.fault(
    "F30",
    injected="kill -9 of an engine with busy containers, nobody restarts it",
    expected="all processes of its containers are gone in 2 s",
)
def test_f30_agents_outlive_the_engine(own_home: Home, backend: str, seen: Seen) -> None:
    if backend == "docker":
        pytest.skip(
            "the processes go; what Docker keeps of ended containers goes at the next start"
        )
    with engine(own_home, backend, "serve") as killed:
        killed.hear()
        inside = descendants_of(killed.process.pid)
        if backend == "docker":
            inside = _of_docker(own_home)
        assert inside
        killed.signal(signal.SIGKILL)
        took = max(process.wait_gone(2.0) for process in inside)
    seen(f"{len(inside)} processes gone after {took:.2f} s")
    with Host(config(own_home, backend)):
        pass  # sweeps what only a next engine can


@pytest.mark.parametrize("backend", ISOLATED[1:])
@pytest.mark.fault(
    "F31",
    injected="containers frozen by SIGSTOP, engine killed, another started",
    expected="removed in 5 s by the next engine; the next engine's own live on",
)
def test_f31_frozen_orphans(own_home: Home, backend: str, seen: Seen) -> None:
    with engine(own_home, backend, "serve") as killed:
        killed.hear()
        inside = descendants_of(killed.process.pid)
        if backend == "docker":
            inside = _of_docker(own_home)
        for process in inside:
            process.signal(signal.SIGSTOP)
        killed.signal(signal.SIGKILL)
        killed.process.wait()
        started = time.monotonic()
        with Host(config(own_home, backend)):
            for process in inside:
                process.wait_gone(5.0)
        seen(f"{len(inside)} frozen processes gone {time.monotonic() - started:.1f} s later")


@pytest.mark.parametrize("phase", ["starting", "running", "streaming", "mapping"])
@pytest.mark.fault(
    "F32",
    injected="SIGINT while starting, running, streaming, mapping",
    expected="KeyboardInterrupt, everything gone in 10 s",
)
def test_f32_ctrl_c(own_home: Home, phase: str, seen: Seen) -> None:
    with engine(own_home, "process", "phase", phase) as interrupted:
        while interrupted.hear() != ["there"]:
            pass
        started = time.monotonic()
        interrupted.signal(signal.SIGINT)
        code = interrupted.process.wait(10)
        took = time.monotonic() - started
        assert "KeyboardInterrupt" in interrupted.errors()
    assert code in (-signal.SIGINT, 130)
    assert live_engines(own_home) == ()
    seen(f"{phase}: ended after {took:.1f} s with {code}")


@pytest.mark.fault(
    "F32",
    injected="SIGINT, at once after the engine began to start",
    expected="the start is given up; everything gone in 10 s",
)
def test_f32_ctrl_c_before_the_engine_is_ready(own_home: Home, seen: Seen) -> None:
    code = "from minimodal.host import Host; print(flush=True); Host().start()"
    environment = {**os.environ, "MINIMODAL_HOME": str(own_home.state.parent)}
    environment["MINIMODAL_BACKEND"] = "process"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert live_engines(own_home) == ()
    seen(f"ended with {process.returncode}")


@pytest.mark.fault(
    "F35",
    injected="a callback of the engine's loop raises ZeroDivisionError",
    expected="the engine stops in 5 s; callers are told why; exit 1; the durable call is kept",
)
def test_f35_a_bug_of_ours(own_home: Home, seen: Seen) -> None:
    with engine(own_home, "process", "crash") as crashed:
        [call_id] = crashed.hear()
        kind, words, took = crashed.hear()
        code = crashed.end()
        errors = crashed.errors()
    assert (kind, code) == ("CallLost", 1)
    assert "the engine stopped: ZeroDivisionError" in words
    assert "ZeroDivisionError" in errors
    assert took < 5
    with Host(config(own_home, "process")):
        call: minimodal.FunctionCall[str] = minimodal.FunctionCall.from_id(call_id)
        with pytest.raises(TimeoutError):
            call.get(timeout=0)
        call.cancel()
        with pytest.raises(CallCancelled):
            call.get(timeout=10)
    seen(f"{words}; exit {code}; the spawned call runs again")


@pytest.mark.fault(
    "F103",
    injected="the engine's lock file is removed",
    expected="the engine stops in a few seconds and names the file",
)
def test_f103_lock_file_removed(own_home: Home, seen: Seen) -> None:
    with engine(own_home, "process", "unlocked") as lost:
        [engine_id] = lost.hear()
        (own_home.engines / f"{engine_id}.lock").unlink()
        kind, words = lost.hear()
        assert lost.process.wait(10) == 1
    assert kind == "CallLost"
    assert ".lock" in words
    seen(words[:120])


@pytest.mark.fault(
    "F40",
    injected="SIGSTOP to the engine for 4 s while a call with a timeout of 2 s runs 0.5 s",
    expected="no false timeout: the answer that waited counts",
)
def test_f40_engine_frozen(own_home: Home, seen: Seen) -> None:
    with engine(own_home, "process", "freeze") as frozen:
        assert frozen.hear() == ["running"]
        frozen.signal(signal.SIGSTOP)
        time.sleep(4)  # the fault itself: the engine stands still for so long
        frozen.signal(signal.SIGCONT)
        assert frozen.hear() == ["done", "done"]
        assert frozen.end() == 0
    seen("the answer that waited counts, and the next call works")


@pytest.mark.fault(
    "F38",
    injected="three engines on one home at once, one killed",
    expected="each runs its own; the dead one's calls are taken over once in 10 s",
)
def test_f38_engines_share_a_home(own_home: Home, tmp_path: Path, seen: Seen) -> None:
    marks = [tmp_path / "first", tmp_path / "second"]
    for path in marks:
        path.touch()
    with (
        engine(own_home, "process", "serve", str(marks[0])) as first,
        engine(own_home, "process", "serve", str(marks[1])) as second,
        Host(config(own_home, "process")),
    ):
        first.hear()
        _, *calls = second.hear()
        _wait_until(lambda: len(marks[1].read_text().split()) == 2)
        assert len(live_engines(own_home)) == 3
        second.signal(signal.SIGKILL)
        started = time.monotonic()
        _wait_until(lambda: len(marks[1].read_text().split()) == 4)
        took = time.monotonic() - started
        runs = Counter(marks[1].read_text().split())
        for call_id in calls:
            minimodal.FunctionCall.from_id(call_id).cancel()
        assert first.end() == 0
    assert runs == dict.fromkeys(calls, 2), "each of the dead engine's calls ran once more"
    assert len(marks[0].read_text().split()) == 2, "a live engine's calls are its own"
    seen(f"taken over once, after {took:.1f} s")


@pytest.mark.fault(
    "F38",
    injected="an engine that took over calls ends while they run",
    expected="it ends at once, they are stopped, and the next engine runs them",
)
def test_f38_what_was_taken_over_is_handed_on(own_home: Home, tmp_path: Path, seen: Seen) -> None:
    marks = [tmp_path / "first", tmp_path / "second"]
    for path in marks:
        path.touch()

    def runs() -> int:
        return len(marks[1].read_text().split())

    with (
        engine(own_home, "process", "serve", str(marks[0])) as first,
        engine(own_home, "process", "serve", str(marks[1])) as second,
    ):
        first.hear()
        _, *calls = second.hear()
        _wait_until(lambda: runs() == 2)
        second.signal(signal.SIGKILL)
        _wait_until(lambda: runs() == 4)
        started = time.monotonic()
        assert first.end() == 0
        took = time.monotonic() - started
    with Host(config(own_home, "process")):
        _wait_until(lambda: runs() == 6)
        for call_id in calls:
            minimodal.FunctionCall.from_id(call_id).cancel()
    seen(f"ended after {took:.1f} s, and they ran on")


def _wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Other processes do it, and nobody tells us when."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def _of_docker(home: Home) -> list[HostProcess]:
    command = ["docker", "ps", "-q", "--filter", f"label=minimodal.home={home.state}"]
    ids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    found = []
    for each in ids:
        top = subprocess.run(
            ["docker", "top", each, "-o", "pid"], capture_output=True, text=True, check=True
        )
        found += [HostProcess(int(pid)) for pid in top.stdout.split()[1:]]
    return found
