"""What happens to a whole container, from outside or by memory and pids: F02-F06, F10-F13, F30."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

from minimodal.errors import OutOfMemory
from tests.faults.functions import do, neighbour
from tests.faults.processes import HostProcess
from tests.faults.suite import Platform, Watch, on

Seen = Callable[[str], None]


def lose_the_first_container(
    platform: Platform, events: Watch, end_it: Callable[[HostProcess, str], None]
) -> float:
    """Seconds from the end of a container until its call runs in another; all else goes on."""
    victim = platform.victim = do.with_options(env={"NEW": str(time.monotonic_ns())})
    other = platform.start(neighbour, "wait")
    elsewhere = HostProcess.of(events.line("who"))
    call = platform.start(victim, "wait")
    event = events.next("who")
    first = HostProcess.of(str(event.fields["text"]))
    end_it(first, str(event.fields["container"]))
    started = time.monotonic()
    again = events.next("who")
    took = time.monotonic() - started
    assert again.fields["container"] != event.fields["container"]
    first.wait_gone(2.0)
    HostProcess.of(str(again.fields["text"])).signal(signal.SIGUSR2)
    assert call.result(5) == "released"
    elsewhere.signal(signal.SIGUSR2)
    assert other.result(5) == "released", "a call in another container is untouched"
    return took


@on("bubblewrap", "docker")
@pytest.mark.fault(
    "F02",
    injected="kill -9 of the container's init",
    expected="noticed in 1 s; its call runs elsewhere; other containers untouched",
)
def test_f02_container_init_dies(platform: Platform, events: Watch, seen: Seen) -> None:
    took = lose_the_first_container(platform, events, lambda process, _: process.init.kill())
    seen(f"runs again elsewhere after {took:.2f} s")


@on("bubblewrap")
@pytest.mark.fault(
    "F03",
    injected="kill -9 of the outer bwrap",
    expected="the whole tree is gone in 1 s, the call runs elsewhere",
)
def test_f03_outer_bwrap_dies(platform: Platform, events: Watch, seen: Seen) -> None:
    def kill_outer(process: HostProcess, _: str) -> None:
        inside = process.namespace()
        process.init.parent.kill()
        for each in inside:
            each.wait_gone(1.0)

    took = lose_the_first_container(platform, events, kill_outer)
    seen(f"no process of it left; runs again elsewhere after {took:.2f} s")


@on("process", "bubblewrap")
@pytest.mark.fault(
    "F04",
    injected="a container asked for by a thread that ends",
    expected="the container lives on: it was spawned by the loop's own thread",
)
def test_f04_started_for_a_thread_that_ends(platform: Platform, seen: Seen) -> None:
    fresh = platform.victim = do.with_options(env={"FRESH": "1"})
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(fresh.remote("who")))
    thread.start()
    thread.join(10)
    assert fresh.remote("who") == words[0], "the same process serves the next caller"
    seen("the same process serves the next caller")


@on("docker")
@pytest.mark.fault(
    "F05",
    injected="docker rm -f of the container",
    expected="as F02; the end of the block tolerates that it is gone",
)
def test_f05_container_removed_behind_our_back(
    platform: Platform, events: Watch, seen: Seen
) -> None:
    def remove(_: HostProcess, container: str) -> None:
        listed = ["docker", "ps", "-q", "--filter", f"name={container}"]
        ids = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
        assert ids, f"no container is named {container}"
        subprocess.run(["docker", "rm", "-f", *ids], capture_output=True, check=True)

    took = lose_the_first_container(platform, events, remove)
    seen(f"runs again elsewhere after {took:.2f} s")


@on("bubblewrap", "docker")
@pytest.mark.fault(
    "F06",
    injected="SIGSTOP to each process of the container",
    expected="killed after four missed heartbeats (here 1.2 s), its call runs elsewhere",
)
def test_f06_container_frozen(
    platform: Platform, events: Watch, seen: Seen, quick_heartbeats: None
) -> None:
    def freeze(process: HostProcess, _: str) -> None:
        for each in process.namespace():
            each.signal(signal.SIGSTOP)

    took = lose_the_first_container(platform, events, freeze)
    assert 1.0 < took < 8.0
    seen(f"noticed, and runs again elsewhere after {took:.2f} s")


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F10",
    injected="memory limit of 96 MiB, bytearray of 300 MB in an executor",
    expected="OutOfMemory naming limit and function; the container lives on",
)
def test_f10_executor_out_of_memory(platform: Platform, seen: Seen) -> None:
    small = platform.victim = do.with_options(memory=(64, 96))
    with pytest.raises((OutOfMemory, MemoryError)) as caught:
        small.remote("allocate", 300 << 20)
    if caught.type is MemoryError:
        pytest.skip("there is no memory cgroup here: F12")
    assert "do" in str(caught.value)
    assert "96 MiB" in str(caught.value)
    seen(str(caught.value))


@on("docker")
@pytest.mark.fault(
    "F11",
    injected="200 MB into /dev/shm under a limit of 96 MiB",
    expected="OutOfMemory too, or the user's ENOSPC: never a hang",
)
def test_f11_shared_memory_counts(platform: Platform, seen: Seen) -> None:
    small = platform.victim = do.with_options(memory=(64, 96))
    with pytest.raises((OutOfMemory, OSError)) as caught:
        small.remote("shared memory", 200)
    seen(f"{caught.type.__name__}: {caught.value}")
