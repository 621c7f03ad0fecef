"""Functions that call functions: every way, recursion in one container, handles, errors."""

from __future__ import annotations

import traceback

import pytest

import minimodal
from minimodal.errors import BlockingCallInLoop, InvalidError, NotFoundError
from tests.programming import nesting as n
from tests.programming.conftest import one_backend

APP = n.app

pytestmark = pytest.mark.usefixtures("running")


def test_every_way_of_calling_works_in_a_container() -> None:
    assert n.every_way.remote(3) == {
        "remote": 6,
        "map": [0, 2, 4],
        "unordered": [0, 2, 4],
        "starmap": [6, 8],
        "for_each": None,
        "remote_gen": [0, 1, 2],
        "spawn": 6,
        "from_id": 6,
        "from_name": 6,
        "variant": 6,
        "gather": [2, 4],
        "stats": True,
    }


def test_every_way_can_be_awaited_in_a_container() -> None:
    assert n.every_way_awaited.remote(3) == {
        "remote": 6,
        "at once": [0, 2, 4],
        "map": [0, 2, 4],
        "remote_gen": [0, 1, 2],
        "spawn": 6,
    }


@one_backend
def test_blocking_calls_in_an_async_function() -> None:
    assert n.blocking_in_async.remote(3) == (6, [0, 2, 4], 6)


@one_backend
@pytest.mark.parametrize("how", ["remote", "spawn", "map"])
def test_a_blocked_loop_is_not_given_the_call_that_it_waits_for(how: str) -> None:
    assert n.stalls_itself.remote(4, how) == 4


@one_backend
def test_waiting_for_a_task_of_the_loop_that_is_blocked_is_an_error() -> None:
    with pytest.raises(BlockingCallInLoop, match="could never end"):
        n.waits_for_its_own_loop.remote(True)


def test_f106_recursion_in_one_container() -> None:
    assert n.recurses_async.remote(6) == 8
    assert n.recurses_in_threads.remote(3) == 8
    assert n.calls_itself_in_a_thread.remote(3) == 3
    assert n.ping.remote(6) == 0


def test_handles_as_arguments() -> None:
    assert n.apply.remote(n.double, 4) == 8
    assert n.apply.remote(n.double.with_options(timeout=30), 4) == 8
    assert n.apply.remote(minimodal.Function.from_name("nesting", "double"), 4) == 8
    assert n.apply.remote(n.apply, n.double, 4) == 8


def test_handles_as_results() -> None:
    function, call = n.gives_a_handle.remote()
    assert function.remote(4) == 8
    assert call.get() == 42


def test_an_exception_passes_through_the_levels() -> None:
    with pytest.raises(n.Refused, match="by the innermost") as caught:
        n.passes_on.remote()
    shown = "".join(traceback.format_exception(caught.value))
    assert 'raise Refused("by the innermost")' in shown
    assert "refuses.remote()" in shown


@one_backend
def test_an_app_can_be_opened_again() -> None:
    other = minimodal.App("again")
    function = other.function(serialized=True)(lambda: "here")
    for _ in range(2):
        with other.run():
            assert function.remote() == "here"


@one_backend
def test_handles_know_their_function() -> None:
    handle = minimodal.Function.from_name("nesting", "double")
    with pytest.raises(InvalidError, match="hydrate"):
        handle.object_id  # noqa: B018  # reading it is the test
    assert handle.hydrate() is handle
    assert handle.object_id
    with pytest.raises(NotFoundError, match="triple"):
        minimodal.Function.from_name("nesting", "triple").hydrate()


@one_backend
def test_bounds_can_be_changed_while_it_runs() -> None:
    function = n.double.with_options(timeout=31)
    function.update_autoscaler(max_containers=2, scaledown_window=5)
    assert list(function.map(range(5))) == [0, 2, 4, 6, 8]
    assert function.get_current_stats().num_total_runners <= 2
    with pytest.raises(InvalidError, match="at least 1"):
        function.update_autoscaler(max_containers=0)
