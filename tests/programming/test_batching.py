"""Single calls gathered into lists: when a batch runs, and whom a failure concerns."""

from __future__ import annotations

import pytest

import minimodal
from minimodal.errors import (
    CallCancelled,
    FunctionTimeoutError,
    InvalidError,
    SerializationError,
)
from tests.programming import inputs as i
from tests.programming.conftest import Printed, one_backend

APP = i.app

pytestmark = pytest.mark.usefixtures("running")


def test_a_full_batch_runs_at_once() -> None:
    assert list(i.add.map(range(8), range(8))) == [(2 * n, 4) for n in range(8)]


def test_arguments_by_name_reach_the_same_lists() -> None:
    calls = [i.add.spawn(1, 2), i.add.spawn(1, ys=3), i.add.spawn(ys=4, xs=1), i.add.spawn(1, 5)]
    assert [call.get() for call in calls] == [(3, 4), (4, 4), (5, 4), (6, 4)]


@one_backend
def test_a_batch_runs_when_its_first_member_has_waited() -> None:
    assert i.sizes.remote("alone") == 1
    assert sum(1 / size for size in i.sizes.map(range(20))) < 20, "some ran together"


@one_backend
def test_wrong_arguments_fail_their_member_alone() -> None:
    calls = [i.add.spawn(1, 2), i.add.spawn(1), i.add.spawn(1, 2, 3), i.add.spawn(3, 4)]
    assert calls[0].get() == (3, 2)
    assert calls[3].get() == (7, 2)
    for wrong in calls[1:3]:
        with pytest.raises(TypeError, match="argument"):
            wrong.get()


@one_backend
def test_an_exception_is_every_members_and_the_next_batch_is_fine() -> None:
    results = list(i.sizes.map(["raise", 1, 2], return_exceptions=True))
    failed = [result for result in results if isinstance(result, LookupError)]
    assert isinstance(results[0], LookupError)
    assert {str(error) for error in failed} == {f"not in a batch of {len(failed)}"}
    assert i.sizes.remote(0) == 1


@one_backend
@pytest.mark.parametrize(
    ("wrong", "words"),
    [("short", "returned 1 results for a batch of 2"), ("text", "must return a list of 2 results")],
)
def test_a_wrong_list_is_every_members_error(wrong: str, words: str) -> None:
    pair = i.sizes.with_batching(max_batch_size=2, wait_ms=60_000)
    for result in pair.map([wrong, 1], return_exceptions=True):
        assert isinstance(result, InvalidError)
        assert words in str(result)
        assert "sizes" in str(result)


@one_backend
def test_a_result_that_cannot_travel_fails_its_member_alone() -> None:
    pair = i.sizes.with_batching(max_batch_size=2, wait_ms=60_000)
    good, bad = pair.map(["lambda", "other"], return_exceptions=True)
    assert good() == 0  # type: ignore[operator]  # a lambda
    assert isinstance(bad, SerializationError)


def test_method_of_a_class() -> None:
    model = i.Model(scale=10)
    assert list(model.predict.map(range(3))) == [(0, 3), (10, 3), (20, 3)]
    one = i.Model.with_batching(max_batch_size=1, wait_ms=0)
    assert one(scale=2).predict.remote(4) == (8, 1)
    named = minimodal.Cls.from_name("inputs", "Model")
    assert list(named(scale=10).predict.map([1, 2, 3])) == [(10, 3), (20, 3), (30, 3)]


@one_backend
def test_a_waiting_member_can_be_cancelled() -> None:
    gone = i.add.spawn(0, 0)
    gone.cancel()
    with pytest.raises(CallCancelled):
        gone.get()
    assert [size for _, size in i.add.map(range(4), range(4))] == [4] * 4


@one_backend
def test_cancelling_one_running_member_leaves_the_batch_alone(printed: Printed) -> None:
    calls = [i.slow.spawn(seconds) for seconds in (0.5, 0.5, 0.5)]
    printed.wait_for(lambda lines: "batch begins" in lines)
    calls[1].cancel()
    with pytest.raises(CallCancelled):
        calls[1].get()
    assert [calls[0].get(), calls[2].get()] == [0.5, 0.5]
    assert printed.lines.count("batch begins") == 1


@one_backend
def test_timeout_of_a_batch_is_every_members() -> None:
    results = list(i.slow.map([60, 0, 0], return_exceptions=True))
    assert [type(result) for result in results] == [FunctionTimeoutError] * 3
    assert list(i.slow.map([0, 0, 0])) == [0, 0, 0]
