"""Several inputs in one container: threads, tasks, and what ends one of them."""

from __future__ import annotations

import pytest

from minimodal.errors import CallCancelled, FunctionTimeoutError
from tests.programming import inputs as i
from tests.programming.conftest import Printed, one_backend

APP = i.app

pytestmark = pytest.mark.usefixtures("running")


def test_sync_inputs_share_a_process_and_nothing_else(printed: Printed) -> None:
    """Each has its own context variables, call id and lines, though they run at once."""
    names = ["one", "two", "three", "four"]
    calls = [i.meet.spawn(name) for name in names]
    results = [call.get() for call in calls]
    assert [(before, after) for before, after, *_ in results] == [("none", n) for n in names]
    assert [call for _, _, call, _ in results] == [call.object_id for call in calls]
    assert len({pid for *_, pid in results}) == 1
    printed.wait_for(lambda lines: len(lines) >= 4)
    lines = {event.fields["call"]: event.fields["text"] for event in printed.events}
    assert lines == {
        call.object_id: f"{name} in {name} out" for call, name in zip(calls, names, strict=True)
    }


@one_backend
def test_async_inputs_are_tasks_with_a_context_each(printed: Printed) -> None:
    names = [f"task {n}" for n in range(6)]
    results = list(i.meet_on_loop.map(names, kwargs={"expected": 6}))
    assert results == [("none", name) for name in names]
    lines = printed.wait_for(lambda lines: len(lines) >= 6)
    assert sorted(lines) == [f"{name} in {name} out" for name in names]


@one_backend
def test_generators_run_at_once() -> None:
    streams = [iter(i.numbers.remote_gen(name, 400)) for name in "abc"]
    for n in range(400):
        assert [next(stream) for stream in streams] == [(n, name) for name in "abc"]
    assert list(i.async_numbers.remote_gen(5)) == [0, 1, 2, 3, 4]


@one_backend
def test_methods_of_a_concurrent_class_run_at_once() -> None:
    assert list(i.Room().meet.map(range(8))) == list(range(8))


@one_backend
def test_with_concurrency() -> None:
    two = i.stays.with_concurrency(max_inputs=2)
    assert [name for name, _ in two.map("abcd", kwargs={"seconds": 0.01})] == list("abcd")


@one_backend
def test_cancelling_one_async_input_leaves_the_others_alone(printed: Printed) -> None:
    cancelled, other = (
        i.stays_on_loop.spawn("cancelled", 600),
        i.stays_on_loop.spawn("other", 0.5),
    )
    printed.wait_for(lambda lines: {"cancelled begins", "other begins"} <= set(lines))
    cancelled.cancel()
    with pytest.raises(CallCancelled):
        cancelled.get()
    assert other.get()[0] == "other"
    assert printed.lines.count("other begins") == 1, "it ran once"
    printed.wait_for(lambda lines: "cancelled ends" in lines)


@one_backend
def test_cancelling_one_sync_input_reschedules_the_others(printed: Printed) -> None:
    """Its thread cannot be stopped, so its process is; that counts against nobody else."""
    first = i.stays.remote("first", 0)[1]
    cancelled = i.stays.spawn("cancelled", 600)
    others = [i.stays.spawn(f"other {n}", 1.2) for n in range(2)]
    printed.wait_for(lambda lines: sum("other" in line for line in lines) == 2)
    cancelled.cancel()
    with pytest.raises(CallCancelled):
        cancelled.get()
    results = [other.get() for other in others]
    assert [name for name, _ in results] == ["other 0", "other 1"]
    assert {pid for _, pid in results} != {first}, "in a new process"


@one_backend
def test_timeout_of_one_input() -> None:
    results = list(i.short_timeout.map([0, 60, 0.5], return_exceptions=True))
    assert isinstance(results[1], FunctionTimeoutError)
    assert results[0] == results[2], "the others went on in the same process"


@one_backend
def test_inputs_one_after_the_other_do_not_see_each_others_context() -> None:
    for name in ("first", "second"):
        call = i.alone.spawn(name)
        before, in_thread, here = call.get()
        assert before == "none"
        assert in_thread == here == call.object_id
