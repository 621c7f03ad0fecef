"""Calls that a caller's thread gives to a slot itself, and what ends that: see engine/lease.py."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from minimodal.engine.pool import Pool
from minimodal.engine.scheduler import Quota
from minimodal.errors import CallLost, FunctionTimeoutError
from minimodal.host import Host
from tests.core.leased import app, do


@pytest.fixture
def pool(host: Host) -> Iterator[Pool]:
    with app.run():
        do.remote("echo", 0)
        [found] = [pool for pool in host.engine.pools.values() if pool.name == "do"]
        yield found


def lend(pool: Pool) -> None:
    """Call until the calls go by a lease."""
    pool.lease_after = 0.0
    until = time.monotonic() + 60
    while pool.lease is None:
        assert time.monotonic() < until, "no slot was lent"
        do.remote("echo", 1)


def test_calls_in_a_row_go_by_a_lease_and_are_counted(pool: Pool, host: Host) -> None:
    lend(pool)
    before = pool.tally.states["ok"]
    leased = 0
    for n in range(500):
        leased += pool.lease is not None
        assert do.remote("echo", n) == n
    assert leased > 250
    until = time.monotonic() + 5
    while pool.lease is not None:  # it is given back soon after the last call
        assert time.monotonic() < until
    assert pool.tally.states["ok"] >= before + 500
    assert host.engine.recent[-1].container == pool.sessions[0].id
    assert not pool.running
    assert not host.engine.calls


def test_a_call_that_takes_longer_is_known_and_can_time_out(pool: Pool, host: Host) -> None:
    lend(pool)
    seen: list[str] = []

    def look() -> None:
        while not (running := list(host.engine.calls.values())):
            pass
        seen.extend(live.state.value for live in running)

    watcher = threading.Thread(target=look)
    watcher.start()
    assert do.remote("sleep", 0.2) == "sleep"
    watcher.join()
    assert seen == ["running"]
    lend(pool)
    with pytest.raises(FunctionTimeoutError):
        do.remote("sleep", 30)
    assert do.remote("echo", "on") == "on"


def test_what_is_printed_comes_with_its_call(
    pool: Pool, host: Host, capfd: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    unsubscribe = host.engine.events.subscribe(
        lambda event: lines.append(event.fields["text"]) if event.kind == "log" else None
    )
    lend(pool)
    assert do.remote("print", "one line") == "print"
    unsubscribe()
    assert "one line" in "".join(lines)


def test_an_exception_keeps_its_type(pool: Pool) -> None:
    lend(pool)
    with pytest.raises(ValueError, match="on purpose"):
        do.remote("raise", "on purpose")
    assert do.remote("echo", "on") == "on"


def test_an_executor_that_ends_is_replaced(pool: Pool) -> None:
    lend(pool)
    with pytest.raises(CallLost, match="exited with code 4"):
        do.remote("exit")
    assert do.remote("echo", "on") == "on"


@pytest.mark.parametrize("deed", ["garbage", "answer for another"])
def test_an_executor_that_breaks_the_protocol_is_cut_off(pool: Pool, deed: str) -> None:
    lend(pool)
    with pytest.raises(CallLost):
        do.remote(deed)
    assert do.remote("echo", "on") == "on"


def test_a_nested_call_of_the_same_container_is_no_deadlock(pool: Pool) -> None:
    lend(pool)
    assert do.remote("nest", 3) == [3, 2, 1, 0]


def test_large_values_go_the_other_way(pool: Pool) -> None:
    lend(pool)
    for size in (10, 40_000, 100_000, 3 << 20, 10):
        assert do.remote("echo", b"x" * size) == b"x" * size


def test_threads_that_call_at_once_share_the_container(pool: Pool) -> None:
    lend(pool)
    answers: dict[int, list[int]] = {}

    def call(first: int) -> None:
        answers[first] = [do.remote("echo", n) for n in range(first, first + 100)]

    threads = [threading.Thread(target=call, args=(first,)) for first in (0, 1000, 2000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {first: list(range(first, first + 100)) for first in (0, 1000, 2000)}
    assert not pool.running


def test_ctrl_c_stops_the_call_and_the_pool_goes_on(pool: Pool, host: Host) -> None:
    lend(pool)
    main = threading.get_ident()

    def interrupt() -> None:
        while not any(session.slots[0].inflight for session in pool.sessions):
            time.sleep(0.001)  # and not in the engine's way
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        do.remote("sleep", 9)
    thread.join()
    assert do.remote("echo", "on") == "on"
    assert host.engine.recent[-2].state.value == "cancelled"


# A Ctrl-C may come when the coroutine is made and nobody has it yet.
@pytest.mark.filterwarnings("ignore:coroutine 'Function.remote' was never awaited")
def test_ctrl_c_at_any_moment(pool: Pool) -> None:
    """Whatever it interrupts, the next call has its own answer."""
    main = threading.get_ident()
    interrupted = 0
    for n in range(20):
        lend(pool)
        timer = threading.Timer(0.000_1 * (n % 12), signal.pthread_kill, (main, signal.SIGINT))
        try:
            timer.start()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                assert do.remote("echo", n) == n
        except KeyboardInterrupt:
            interrupted += 1
        timer.join()
        assert do.remote("echo", -n) == -n
    assert interrupted == 20


def test_a_closed_app_ends_the_lease(host: Host) -> None:
    with app.run():
        do.remote("echo", 0)
        [pool] = [pool for pool in host.engine.pools.values() if pool.name == "do"]
        lend(pool)
    assert pool.lease is None
    assert pool.closed


def test_a_quota_of_running_calls_is_for_the_queue(pool: Pool, host: Host) -> None:
    lend(pool)
    tenants = host.engine.tenants
    tenants.set_quota("default", Quota(max_running=5))
    host.loop.call_soon_threadsafe(host.engine.quotas_changed)
    try:
        for n in range(50):
            assert do.remote("echo", n) == n
        assert pool.lease is None
    finally:
        tenants.set_quota("default", Quota())
        tenants.limits_running = False


def test_what_is_asked_in_a_call_is_of_that_call(pool: Pool) -> None:
    lend(pool)
    assert len({do.remote("who") for _ in range(100)}) == 100
