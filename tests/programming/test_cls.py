"""Classes in real containers: state, hooks, parameters, pools, and what a failing @enter does."""

from __future__ import annotations

import time
import traceback

import pytest

import minimodal
from minimodal.errors import CallLost, CircuitOpen, ExecutionError, InvalidError, NotFoundError
from tests.programming import classes as c
from tests.programming.conftest import Printed, one_backend

APP = c.app

pytestmark = pytest.mark.usefixtures("running")


def container(counter: object) -> str:
    return str(counter.report.remote()["container"])  # type: ignore[attr-defined]  # a Counter


def test_state_lives_as_long_as_the_container() -> None:
    counter = c.Counter(name="state", start=10)
    assert counter.add.remote(1) == 11
    assert counter.add.remote(1) == 12
    assert list(counter.count.remote_gen(3)) == [13, 14, 15], "methods share the container"
    assert counter.greet.remote("hello") == "hello state"


def test_hooks_run_parents_first_and_snap_before_all_in_the_zygote() -> None:
    report = c.Counter(name="state", start=10).report.remote()
    assert report["order"] == ["snap", "parent", "child"]
    assert report["forked"]
    assert report["plain"] == "plain state"


def test_equal_parameters_share_a_pool_and_others_do_not() -> None:
    assert container(c.Counter()) == container(c.Counter(start=0, name="nobody"))
    assert container(c.Counter()) != container(c.Counter(name="state", start=10))


def test_map_over_a_method() -> None:
    counter = c.Counter(name="state", start=10)
    assert list(counter.greet.map(["a", "b"])) == ["a state", "b state"]
    call = counter.greet.spawn("spawned")
    assert call.get() == "spawned state"


def test_methods_of_self() -> None:
    assert c.Counter().three_ways.remote() == ("remote nobody", "local nobody", "plain nobody")


def test_an_overridden_method_calls_its_parents() -> None:
    assert c.Child().greet.remote("hi") == "hi nobody!"
    assert c.Child().report.remote()["order"] == ["snap", "parent", "child"]


def test_exception_of_a_method() -> None:
    with pytest.raises(LookupError, match="nobody has nothing") as caught:
        c.Counter().fails.remote()
    assert 'raise LookupError(f"{self.name} has nothing")' in "".join(
        traceback.format_exception(caught.value)
    )


def test_async_methods_and_hooks_share_one_loop() -> None:
    loop = c.Loop()
    assert [loop.tick.remote(), loop.tick.remote()] == [0, 1]
    assert list(loop.ticks_from.remote_gen(2)) == [2, 3]
    assert loop.blocking.remote() == "a plain method beside async ones"


@one_backend
def test_class_with_an_init_of_its_own() -> None:
    assert c.Old(1).times.remote(3) == 7
    assert c.Old(1, factor=2).times.remote(3) == 7
    assert c.Old(base=5, factor=10).times.remote(3) == 35


def test_objects_and_methods_travel_as_handles() -> None:
    counter = c.Counter(name="state", start=10)
    assert c.use.remote(counter, "object") == "object state"
    assert c.use.remote(counter.greet, "method") == "method state"


def test_class_by_name() -> None:
    counter = minimodal.Cls.from_name("classes", "Counter")
    assert counter(name="state", start=10).greet.remote("found") == "found state"
    assert container(counter()) == container(c.Counter()), "it knows the defaults"
    assert list(counter().count.remote_gen(1)) == [c.Counter().add.remote(0)]


@one_backend
def test_wrong_uses_of_a_class_by_name() -> None:
    counter = minimodal.Cls.from_name("classes", "Counter")
    with pytest.raises(NotFoundError, match=r"no method 'grete'; it has greet, add"):
        counter().grete.remote()
    with pytest.raises(InvalidError, match=r"no parameter 'size'"):
        counter(size=1).greet.remote("x")
    with pytest.raises(InvalidError, match="must be int, not 'many'"):
        counter(start="many").greet.remote("x")
    with pytest.raises(InvalidError, match="code is not here"):
        counter().greet.local("x")
    with pytest.raises(InvalidError, match="remote_gen"):
        counter().count.remote(1)


@one_backend
def test_class_by_an_unknown_name() -> None:
    with pytest.raises(NotFoundError, match="Nothing"):
        minimodal.Cls.from_name("classes", "Nothing")().work.remote()
    with pytest.raises(NotFoundError, match=r"Function\.from_name"):
        minimodal.Cls.from_name("classes", "use")().work.remote()


@one_backend
def test_with_options_has_pools_of_its_own() -> None:
    other = c.Counter.with_options(timeout=20).with_options(max_containers=1)
    assert other(name="x").greet.remote("hi") == "hi x"
    assert container(other(name="x")) != container(c.Counter())
    assert container(other(name="x")) == container(other(name="x"))


def test_statistics_and_bounds_of_one_object() -> None:
    counter = c.Counter()
    counter.add.remote(0)
    stats = counter.add.get_current_stats()
    assert (stats.backlog, stats.num_running_inputs) == (0, 0)
    assert stats.num_total_runners >= 1
    assert counter.add.object_id.endswith("/Counter")
    counter.update_autoscaler(max_containers=3)
    with pytest.raises(InvalidError, match="min_containers=4 is more than max_containers=3"):
        counter.update_autoscaler(min_containers=4)


# --- starting -----------------------------------------------------------------------------------------


@one_backend
def test_f21_f95_a_failing_enter_opens_the_breaker_until_it_is_mended() -> None:
    """FAULTS F21, F95."""
    assert c.Switch().turn.remote(False) == 0
    with pytest.raises(ConnectionRefusedError, match="the database is down") as caught:
        list(c.Broken().work.map(range(1000)))
    shown = "".join(traceback.format_exception(caught.value))
    assert 'raise ConnectionRefusedError("the database is down")' in shown
    for _ in range(3):
        with pytest.raises((ConnectionRefusedError, CircuitOpen)) as caught_next:
            c.Broken().work.remote(1)
    assert isinstance(caught_next.value, CircuitOpen)
    assert "ConnectionRefusedError: the database is down" in str(caught_next.value)
    assert c.Switch().turn.remote(True) == 5, "containers that were started"
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            assert c.Broken().work.remote(1) == 2
            break
        except CircuitOpen:
            time.sleep(0.05)  # the breaker counts real time
    assert list(c.Broken().work.map(range(3))) == [1, 2, 3]


@one_backend
def test_f21_an_enter_that_hangs_ends_at_the_startup_timeout() -> None:
    with pytest.raises(ExecutionError, match="not ready after 1 s"):
        c.Hangs.with_options(startup_timeout=1)().work.remote()


@one_backend
def test_an_enter_that_ends_the_process_is_named() -> None:
    with pytest.raises(ExecutionError, match="exited with code 7") as caught:
        c.Ends().work.remote()
    assert not isinstance(caught.value, CallLost)


# --- stopping -----------------------------------------------------------------------------------------


def test_exit_runs_when_the_app_is_closed(printed: Printed) -> None:
    with c.leaving.run():
        assert c.Leaves(how="closed").work.remote() == "closed"
        c.LeavesLater().work.remote()
    printed.wait_for(lambda lines: {"closed has left", "async has left"} <= set(lines))
    assert printed.lines.index("closed leaves") < printed.lines.index("closed has left")


def test_f22_exit_runs_when_the_pool_shrinks_and_its_error_is_in_the_log(printed: Printed) -> None:
    with c.leaving.run():
        raises = c.Leaves.with_options(single_use_containers=True)(how="raises")
        assert raises.work.remote() == "raises"
        lines = printed.wait_for(lambda lines: "raises has left" in lines)
    assert "ValueError: while leaving" in lines
