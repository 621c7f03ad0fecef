"""Engine locks against real processes: kill -9, fork, two engines in one process, sweepers."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from minimodal import engine_lock
from minimodal.clock import ManualClock
from minimodal.engine_lock import hold_engine_lock, is_alive, live_engines, sweep_dead_engines
from minimodal.errors import AlreadyExistsError, StateError
from minimodal.home import Home

CHILD = """
import sys
from minimodal.engine_lock import hold_engine_lock
from minimodal.home import open_home
with hold_engine_lock(open_home(sys.argv[1]), sys.argv[2], role="up", sole="sole" in sys.argv):
    exec(sys.argv[3])
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def engine_process(
    own: Home, engine_id: str, *options: str, also: str = ""
) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(own.data.parent), engine_id, also, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin
    assert child.stdout
    try:
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


def test_alive_while_held_and_gone_afterwards(own: Home) -> None:
    assert not is_alive(own, "en-1")
    with hold_engine_lock(own, "en-1", role="run", clock=ManualClock(now=5.0)) as lock:
        assert is_alive(own, "en-1")
        assert live_engines(own) == (lock.info,)
        assert lock.info.started == 5.0
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()  # drops the lock: the trap
    assert not is_alive(own, "en-1")
    assert list(own.engines.iterdir()) == []


def test_a_dead_engines_id_is_known_dead_and_its_files_are_swept(own: Home) -> None:
    with engine_process(own, "en-dead") as child, engine_process(own, "en-live"):
        (own.engines / "en-dead.sock").touch()
        (own.engines / "en-live.sock").touch()
        assert is_alive(own, "en-dead")
        assert sweep_dead_engines(own) == ()
        assert {e.pid for e in live_engines(own)} > {child.pid}

        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not is_alive(own, "en-dead")
        assert [e.id for e in live_engines(own)] == ["en-live"]
        assert sweep_dead_engines(own) == ("en-dead",)
        assert sorted(p.name for p in own.engines.iterdir()) == ["en-live.lock", "en-live.sock"]
        assert is_alive(own, "en-live")


def test_two_engines_in_one_process_see_each_other_and_do_not_drop_their_locks(own: Home) -> None:
    with (
        hold_engine_lock(own, "en-a"),
        hold_engine_lock(own, "en-b"),
    ):
        for _ in range(3):
            assert is_alive(own, "en-a")
            assert is_alive(own, "en-b")
            assert [e.id for e in live_engines(own)] == ["en-a", "en-b"]
            assert sweep_dead_engines(own) == ()
        assert seen_from_elsewhere(own) == ["en-a", "en-b"]


def test_f39_a_forked_child_does_not_keep_its_dead_parent_alive(own: Home) -> None:
    fork = "import os, signal\nif not os.fork(): signal.pause()"
    with engine_process(own, "en-parent", also=fork) as child:
        sleeper = int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
        try:
            assert is_alive(own, "en-parent")
            child.kill()
            child.wait()
            assert not is_alive(own, "en-parent")
        finally:
            os.kill(sleeper, signal.SIGKILL)


def test_a_forked_child_sees_its_parent_by_the_kernel_and_not_by_the_copied_table(
    own: Home,
) -> None:
    with hold_engine_lock(own, "en-parent"):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            answer = b"yes" if not engine_lock._held and is_alive(own, "en-parent") else b"no"
            os.write(write, answer)
            os._exit(0)
        os.waitpid(pid, 0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read() == b"yes"
        assert seen_from_elsewhere(own) == ["en-parent"]  # the child's probe did not drop it


def test_f38_a_second_up_is_refused_with_the_pid_of_the_first(own: Home) -> None:
    with engine_process(own, "en-first", "sole") as child:
        with (
            pytest.raises(AlreadyExistsError, match=rf"minimodal up.*pid {child.pid}"),
            hold_engine_lock(own, "en-second", role="up", sole=True),
        ):
            pass
        with hold_engine_lock(own, "en-third", role="run", sole=True):
            pass
    with hold_engine_lock(own, "en-fourth", role="up", sole=True):
        with (
            pytest.raises(AlreadyExistsError, match=f"pid {os.getpid()}"),
            hold_engine_lock(own, "en-fifth", role="up", sole=True),
        ):
            pass
        assert is_alive(own, "en-fourth")


def test_a_sweeper_between_create_and_lock_makes_the_engine_try_again(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.lockf
    removed: list[bool] = []

    def lockf(fd: int, command: int) -> None:
        if command == fcntl.LOCK_EX and not removed:
            removed.append(True)
            (own.engines / "en-1.lock").unlink()
        real(fd, command)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with hold_engine_lock(own, "en-1"):
        assert removed
        assert seen_from_elsewhere(own) == ["en-1"]


@pytest.mark.parametrize("damage", ["remove", "replace"])
def test_f103_an_engine_notices_that_its_lock_file_is_gone(own: Home, damage: str) -> None:
    with hold_engine_lock(own, "en-1") as lock:
        lock.check()
        lock.path.unlink()
        if damage == "replace":
            lock.path.touch()
        with pytest.raises(StateError, match=r"en-1\.lock"):
            lock.check()


def test_an_engine_whose_descriptor_was_closed_notices_and_closes_nobody_elses(own: Home) -> None:
    with ExitStack() as stack:
        lock = stack.enter_context(hold_engine_lock(own, "en-1"))
        os.close(lock._fd)
        assert os.open(os.devnull, os.O_RDONLY) == lock._fd
        with pytest.raises(StateError):
            lock.check()
    os.close(lock._fd)  # still open: release left the other file's descriptor alone
    assert not engine_lock._held


def test_ids_that_are_paths_are_refused(own: Home) -> None:
    for bad in ("", "../x", ".hidden"):
        with pytest.raises(ValueError, match="engine id"):
            is_alive(own, bad)


def seen_from_elsewhere(own: Home) -> list[str]:
    """Live engines as another process sees them: through the kernel's locks."""
    code = (
        "import sys; from minimodal.engine_lock import *; from minimodal.home import open_home;"
        "print(*[e.id for e in live_engines(open_home(sys.argv[1]))])"
    )
    output = subprocess.check_output([sys.executable, "-c", code, str(own.data.parent)], text=True)
    return output.split()
