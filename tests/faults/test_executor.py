"""What user code, or somebody's signal, does to one executor: F01, F07-F09, F12, F17-F20."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from minimodal.errors import CallCancelled, CallLost, Error, ExecutionError, FunctionTimeoutError
from tests.faults.functions import do, neighbour
from tests.faults.processes import HostProcess, named
from tests.faults.suite import Platform, Watch

Seen = Callable[[str], None]


@pytest.mark.fault(
    "F01",
    injected="kill -9 of the executor's host pid, four times",
    expected="noticed in 1 s, retried in the same container; then CallLost naming signal 9",
)
def test_f01_executor_dies_mid_call(platform: Platform, events: Watch, seen: Seen) -> None:
    call = do.spawn("wait")
    parents, pauses, killed = set(), [], 0.0
    for loss in range(1, 5):
        executor = HostProcess.of(events.line("who"))
        if loss > 1:
            pauses.append(time.monotonic() - killed)
        parents.add(executor.parent.pid)
        executor.kill()
        killed = time.monotonic()
    with pytest.raises(CallLost, match=r"do: .*signal 9 \(SIGKILL\).*tried 4 times"):
        call.get(timeout=10)
    assert len(parents) == 1, "re-forked by the same container"
    assert max(pauses) < 5.0
    letters = platform.run(platform.engine.durable.store.dead_letters.find)
    assert call.object_id in [letter.id for letter in letters]
    seen(f"runs again after {max(pauses):.2f} s at most; the 4th loss is a dead letter")


@pytest.mark.fault(
    "F07",
    injected="SIGSTOP to the executor",
    expected="its call ends at timeout + 2 s, the executor is replaced, neighbours unharmed",
)
def test_f07_executor_frozen(platform: Platform, events: Watch, seen: Seen) -> None:
    victim = platform.victim = do.with_options(timeout=1, startup_timeout=30)
    call = platform.start(victim, "wait")
    executor = HostProcess.of(events.line("who"))
    executor.signal(signal.SIGSTOP)
    started = time.monotonic()
    assert neighbour.remote("fine") == "fine"
    with pytest.raises(FunctionTimeoutError, match="timeout of 1 s"):
        call.result(10)
    assert time.monotonic() - started < 8.0
    executor.wait_gone(1.0)
    seen(f"timed out after {time.monotonic() - started:.1f} s")


@pytest.mark.fault(
    "F08",
    injected="ctypes.string_at(0)",
    expected="CallLost naming SIGSEGV, function and tries; tried 4 times",
)
def test_f08_segfault(platform: Platform, seen: Seen) -> None:
    with pytest.raises(CallLost, match=r"do: .*SIGSEGV.*tried 4 times") as caught:
        do.remote("segfault")
    seen(str(caught.value))


@pytest.mark.fault(
    "F09",
    injected="os._exit(3), sys.exit(3), kill 15, SystemExit",
    expected="three different errors with code or signal",
)
@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("os._exit", CallLost, "exited with code 3"),
        ("sys.exit", ExecutionError, "SystemExit.*3"),
        ("SystemExit", ExecutionError, "SystemExit.*enough"),
        ("kill", CallLost, "SIGTERM"),
    ],
)
def test_f09_process_exits(
    platform: Platform, seen: Seen, how: str, kind: type[Error], words: str
) -> None:
    started = time.monotonic()
    with pytest.raises(kind, match=words) as caught:
        do.remote(how)
    assert time.monotonic() - started < 10.0, (
        "not the seconds of a heartbeat for each of four tries"
    )
    seen(str(caught.value))


@pytest.mark.fault(
    "F17",
    injected="Popen of sleep 297 that inherits stdout, in its session and in one of its own",
    expected="the outcome is not delayed; the process goes with the container",
)
def test_f17_grandchild_outlives_the_call(platform: Platform, seen: Seen) -> None:
    once = do.with_options(single_use_containers=True)
    started = time.monotonic()
    assert once.remote("grandchild", False) == "fine"
    assert once.remote("grandchild", True) == "fine"
    took = time.monotonic() - started
    assert took < 10
    for process in named("sleep", "297"):
        process.wait_gone(5.0)
    seen(f"two calls in {took:.1f} s; gone {time.monotonic() - started - took:.1f} s later")


@pytest.mark.fault(
    "F18",
    injected="os.closerange(3, 512); dup2 over them",
    expected="an error that names the cause; the executor is replaced",
)
@pytest.mark.parametrize("how", ["close", "cover"])
def test_f18_user_code_breaks_descriptors(platform: Platform, seen: Seen, how: str) -> None:
    started = time.monotonic()
    with pytest.raises(ExecutionError, match=r"do: .*(descriptor|connection)") as caught:
        platform.start(do, how).result(10)
    seen(f"{caught.value} ({time.monotonic() - started:.1f} s)")


@pytest.mark.fault(
    "F18",
    injected="4 KiB of 0xff written to each descriptor",
    expected="an error that names the broken protocol; no other function's call sees it",
)
def test_f18_user_code_writes_junk(platform: Platform, seen: Seen) -> None:
    other = platform.start(neighbour, "sleep", 0.5)
    with pytest.raises(ExecutionError, match=r"do: .*broke the protocol") as caught:
        platform.start(do, "junk").result(20)
    assert other.result(10) is None
    seen(str(caught.value))


@pytest.mark.fault(
    "F19",
    injected="os.fork() in the function, both return",
    expected="one outcome, the parent's; the child ends",
)
def test_f19_user_code_forks(platform: Platform, seen: Seen) -> None:
    assert do.remote("fork") == "parent"
    me = HostProcess.of(do.remote("who"))
    children = [p for p in me.namespace() if p.alive and p.pid != me.pid and p.parent == me]
    for child in children:
        child.wait_gone(2.0)
    seen("the parent's result, and no child")


@pytest.mark.fault(
    "F20",
    injected="catastrophic regular expression; all signals blocked and SIGTERM ignored",
    expected="timeout and cancel end it in 2 s by SIGKILL of that executor alone",
)
@pytest.mark.parametrize("how", ["gil", "mask"])
def test_f20_deaf_executor(platform: Platform, seen: Seen, how: str) -> None:
    victim = platform.victim = do.with_options(timeout=1, startup_timeout=30)
    before = HostProcess.of(victim.remote("who")).parent
    started = time.monotonic()
    with pytest.raises(FunctionTimeoutError):
        victim.remote(how)
    timed_out = time.monotonic() - started
    call = victim.with_options(timeout=60).spawn(how)
    call.cancel()
    with pytest.raises(CallCancelled):
        call.get(timeout=2)
    after = HostProcess.of(victim.remote("who")).parent
    assert timed_out < 8.0
    assert before == after, "the container lives on"
    seen(f"timed out after {timed_out:.1f} s, the container lives on")
