"""`FunctionCall`: many inputs behind one handle, the tree of calls, and both after a restart."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

import minimodal
from minimodal import FunctionCall, experimental
from minimodal.call_graph import InputInfo, InputStatus
from minimodal.config import load_config
from minimodal.errors import CallCancelled, InvalidError, NotFoundError
from minimodal.host import Host
from tests.programming import handles as h
from tests.programming.conftest import one_backend

APP = h.app

pytestmark = pytest.mark.usefixtures("running")


def test_many_inputs_behind_one_handle() -> None:
    call = h.tenth.experimental_spawn_map(range(5), kwargs={"times": 2})
    assert call.num_inputs() == 5
    assert list(call.iter()) == [0, 20, 40, 60, 80]
    assert list(call.iter(1, 3)) == [20, 40]
    assert [call.get(index=4), call.get()] == [80, 0]
    assert call.status() == "ok"
    same: FunctionCall[int] = FunctionCall.from_id(call.object_id)
    assert list(same.iter(3)) == [60, 80]
    assert h.reads.remote(call) == h.reads.remote(pickle.loads(pickle.dumps(same)))
    assert [info.function_call_id for info in call.get_call_graph()[0].children] == [
        f"{call.object_id.partition('.')[0]}.{index}" for index in range(5)
    ]


@one_backend
def test_a_failure_comes_in_its_turn() -> None:
    results = h.tenth.experimental_spawn_map([1, 13, 2]).iter()
    assert next(iter(results)) == 10
    call = h.tenth.experimental_spawn_map([1, 13, 2])
    with pytest.raises(ValueError, match="unlucky"):
        list(call.iter())
    assert call.get(index=2) == 20


@one_backend
def test_awaited() -> None:
    async def use() -> tuple[int, list[int], int]:
        call = await h.tenth.experimental_spawn_map.aio(range(3))
        return await call.num_inputs.aio(), [x async for x in call.iter()], await call.get.aio()

    assert asyncio.run(use()) == (3, [0, 10, 20], 0)


@one_backend
def test_wrong_uses() -> None:
    call = h.tenth.experimental_spawn_map([1])
    for index in (1, -1, "0"):
        with pytest.raises(InvalidError, match="1 inputs, and none with index"):
            call.get(index=index)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(InvalidError, match="takes iterables; 3 is none"):
        h.tenth.spawn_map(3)
    with pytest.raises(InvalidError, match="takes an iterable"):
        h.tenth.experimental_spawn_map()
    empty = h.tenth.experimental_spawn_map([])
    assert (empty.num_inputs(), list(empty.iter())) == (0, [])
    assert h.tenth.spawn(2).num_inputs() == 1
    assert list(h.tenth.spawn(2).iter()) == [20]


def test_cancel_ends_all_of_them() -> None:
    call = h.waits.experimental_spawn_map([30, 60])
    call.cancel()
    assert call.status() == "cancelled"
    assert {info.status for info in call.get_call_graph()[0].children} == {InputStatus.TERMINATED}
    with pytest.raises(CallCancelled):
        call.get(index=1)


def found(info: InputInfo) -> object:
    return info.function_name, info.status.name, [found(child) for child in info.children]


def test_the_tree_of_calls_while_it_runs_and_afterwards() -> None:
    call = h.root.spawn(1)
    leaf = ("leaf", "SUCCESS", [])
    while True:  # until the innermost has begun
        (top,) = call.get_call_graph()
        if "waits" in repr(top) and all(
            info.task_id for info in top.children[0].children[0].children[1:]
        ):
            break
    pending = ("branch", "PENDING", [leaf, ("waits", "PENDING", [])])
    assert found(top) == ("", "PENDING", [("root", "PENDING", [pending])])
    (root,) = top.children
    assert (root.function_call_id, root.module_name) == (call.object_id, h.__name__)
    assert root.task_id.startswith("ct-")
    h.gate.put(7)
    assert call.get() == [1, 7]
    done = ("branch", "SUCCESS", [leaf, ("waits", "SUCCESS", [])])
    assert found(call.get_call_graph()[0].children[0]) == ("root", "SUCCESS", [done])
    with pytest.raises(NotFoundError, match="fc-0"):
        FunctionCall.from_id("fc-0").get_call_graph()


def test_a_container_that_wants_no_further_inputs() -> None:
    first = h.wears_out.remote(False)
    assert h.wears_out.remote(True) == first
    assert h.wears_out.remote(False) != first
    with pytest.raises(InvalidError, match="inside a function's container"):
        experimental.stop_fetching_inputs()


@one_backend
def test_statuses(running: Host) -> None:
    failed = h.tenth.spawn(13)
    with pytest.raises(ValueError, match="unlucky"):
        failed.get()
    assert failed.get_call_graph()[0].children[0].status == InputStatus.FAILURE


@one_backend
def test_all_of_it_after_a_restart(scratch: Path) -> None:
    settings = load_config({"backend": "process", "home": scratch / "handles"})
    app = minimodal.App("handles-restart")
    tenth = app.function(serialized=True)(lambda x: x * 10)
    with Host(settings), app.run():
        call = tenth.experimental_spawn_map(range(3))
        assert list(call.iter()) == [0, 10, 20]
    with Host(settings):
        same: FunctionCall[int] = FunctionCall.from_id(call.object_id)
        assert (list(same.iter()), same.status()) == ([0, 10, 20], "ok")
        (top,) = same.get_call_graph()
        assert [child.status for child in top.children] == [InputStatus.SUCCESS] * 3
