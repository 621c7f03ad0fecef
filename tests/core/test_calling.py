"""Every way of calling a function, on every backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

import minimodal
from minimodal import context, mapping
from minimodal.errors import InvalidError, NotFoundError
from tests.core import functions as f


def test_remote_runs_in_a_container() -> None:
    import os

    seen = f.where.remote()
    assert seen["pid"] != os.getpid()
    assert seen["local"] is False
    assert seen["call"].startswith("fc-")
    assert seen["input"].startswith("in-")
    assert seen["env"]["MINIMODAL_IS_REMOTE"] == "1"
    assert seen["env"]["MINIMODAL_TASK_ID"].startswith("ct-")


def test_local_and_plain_call_run_here() -> None:
    assert f.square.local(4) == 16
    assert f.square(5) == 25
    assert minimodal.is_local()
    assert minimodal.current_function_call_id() is None


def test_keyword_arguments() -> None:
    assert f.add.remote(1, b=2, times=3) == 9


def test_async_function() -> None:
    assert f.async_add.remote(1, 2) == 3


async def _both_ways() -> tuple[int, list[int]]:
    one = await f.square.remote.aio(3)
    many = [x async for x in f.square.map.aio([1, 2, 3])]
    return one, many


def test_aio_under_a_running_loop() -> None:
    assert asyncio.run(_both_ways()) == (9, [1, 4, 9])


def test_what_is_never_iterated_says_so() -> None:
    with pytest.warns(RuntimeWarning, match=r"square\.map\(\) was never iterated.*for_each"):
        f.square.map([1, 2])
    with pytest.warns(RuntimeWarning, match=r"count\.remote_gen\(\) was never iterated"):
        f.count.remote_gen(2)


async def _blocking_inside() -> int:
    return f.square.remote(6)


def test_blocking_call_under_a_running_loop_works() -> None:
    assert asyncio.run(_blocking_inside()) == 36


async def _concurrently() -> list[int]:
    many = (f.square.remote.aio(i) for i in range(20))
    return list(await asyncio.gather(*many))  # noqa: TID251  # as users write it


def test_many_at_once_under_asyncio() -> None:
    assert asyncio.run(_concurrently()) == [i * i for i in range(20)]


# --- map ----------------------------------------------------------------------------------------------


def test_map_keeps_the_order_of_inputs() -> None:
    assert list(f.square.map(range(50))) == [i * i for i in range(50)]


def test_map_unordered_gives_all() -> None:
    assert sorted(f.square.map(range(50), order_outputs=False)) == [i * i for i in range(50)]


def test_map_zips_iterables_and_passes_kwargs() -> None:
    assert list(f.add.map([1, 2, 3], [10, 20, 30], kwargs={"times": 2})) == [22, 44, 66]


def test_map_over_nothing_ends_at_once() -> None:
    assert list(f.square.map([])) == []


def test_starmap() -> None:
    assert list(f.add.starmap([(1, 2), (3, 4)])) == [3, 7]


def test_for_each_waits_and_gives_none() -> None:
    assert f.square.for_each(range(5)) is None


def test_map_raises_the_first_exception_in_its_turn() -> None:
    results = iter(f.fails.map([1]))
    with pytest.raises(f.Custom):
        next(results)


def test_map_returns_exceptions_in_place() -> None:
    results = list(f.ends_process.map(["alive", "sys.exit", "alive"], return_exceptions=True))
    assert results[0] == results[2] == "alive"
    assert isinstance(results[1], minimodal.Error)


def test_map_of_none_is_a_value() -> None:
    assert list(f.echo.map([None, 1, None])) == [None, 1, None]


def test_endless_input_with_break() -> None:
    pulled = 0

    def inputs() -> Iterator[int]:
        nonlocal pulled
        while True:
            pulled += 1
            yield pulled

    for result in f.square.map(inputs()):
        if result >= 100:
            break
    assert result == 100
    assert pulled < 5000, "inputs are pulled with back-pressure"


def test_large_inputs_are_pulled_less_far_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "WINDOW_BYTES", 4 << 20)
    monkeypatch.setattr(mapping, "WINDOW_LEAST", 2)
    pulled = taken = most = 0

    def inputs() -> Iterator[bytes]:
        nonlocal pulled, most
        for _ in range(40):
            pulled += 1
            most = max(most, pulled - taken)
            yield bytes(1 << 20)

    for size in f.sizes.map(inputs(), order_outputs=False):
        taken += size >> 20
    assert (taken, pulled) == (40, 40)
    assert most <= 6  # four that run, one that has ended, one that is pulled


def test_f107_exception_of_the_input_iterator_reaches_the_caller() -> None:
    def inputs() -> Iterator[int]:
        yield 1
        raise LookupError("no more inputs")

    with pytest.raises(LookupError, match="no more inputs"):
        list(f.square.map(inputs()))


async def _async_inputs() -> AsyncIterator[int]:
    for i in range(3):
        await asyncio.sleep(0)
        yield i


def test_map_over_an_async_iterable() -> None:
    async def main() -> list[int]:
        return [x async for x in f.square.map.aio(_async_inputs())]

    assert asyncio.run(main()) == [0, 1, 4]


def test_blocking_map_over_an_async_iterable_is_an_error() -> None:
    with pytest.raises(InvalidError, match=r"\.aio"):
        list(f.square.map(_async_inputs()))


@pytest.mark.parametrize("wrong", [5, None])
def test_f107_map_over_no_iterable_is_an_error(wrong: object) -> None:
    with pytest.raises(InvalidError, match="iterable"):
        f.square.map(wrong)  # type: ignore[arg-type]


# --- generators ---------------------------------------------------------------------------------------


def test_generator_streams() -> None:
    assert list(f.count.remote_gen(1000)) == list(range(1000))


def test_async_generator_streams() -> None:
    assert list(f.async_count.remote_gen(1000)) == list(range(1000))


def test_generator_under_asyncio() -> None:
    async def main() -> list[int]:
        return [x async for x in f.count.remote_gen.aio(5)]

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]


def test_generator_error_comes_after_its_items() -> None:
    items = iter(f.breaks_after.remote_gen(3))
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(f.Custom) as caught:
        next(items)
    assert caught.value.why == "after the items"


def test_remote_of_a_generator_is_an_error() -> None:
    with pytest.raises(InvalidError, match="remote_gen"):
        f.count.remote(1)


def test_remote_gen_of_a_function_is_an_error() -> None:
    with pytest.raises(InvalidError, match="no generator"):
        f.square.remote_gen(1)


# --- handles ------------------------------------------------------------------------------------------


def test_spawn_and_get() -> None:
    call = f.square.spawn(7)
    assert call.object_id.startswith("fc-")
    assert call.get() == 49
    assert call.get() == 49, "the result is kept"
    assert call.result() == 49


def test_spawned_generator_streams() -> None:
    assert list(f.count.spawn(4).stream()) == [0, 1, 2, 3]


def test_from_id() -> None:
    call = f.square.spawn(8)
    assert minimodal.FunctionCall.from_id(call.object_id).get() == 64


def test_from_id_of_nothing() -> None:
    with pytest.raises(NotFoundError, match="fc-0000"):
        minimodal.FunctionCall.from_id("fc-0000").get()
    with pytest.raises(InvalidError, match="no call id"):
        minimodal.FunctionCall.from_id("square")


def test_gather_keeps_the_order() -> None:
    assert minimodal.gather(f.square.spawn(2), f.square.spawn(3)) == [4, 9]
    assert minimodal.FunctionCall.gather(f.square.spawn(4)) == [16]
    assert asyncio.run(minimodal.FunctionCall.gather.aio(f.square.spawn(5))) == [25]


def test_get_with_a_timeout_raises_the_builtin(tmp_path_factory: pytest.TempPathFactory) -> None:
    call = f.waits_for.spawn("/nonexistent")
    with pytest.raises(TimeoutError):
        call.get(timeout=0)
    with pytest.raises(TimeoutError):
        call.get(timeout=0.05)
    call.cancel()
    with pytest.raises(minimodal.Error, match="cancelled"):
        call.get()


# --- large values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [300_000, 8 << 20])
def test_large_bytes_arrive_as_what_they_were(nbytes: int) -> None:
    data = bytes(range(256)) * (nbytes // 256)
    seen, back = f.kinds.remote(data, bytearray(data), named=data)
    assert seen == {"0": "bytes", "1": "bytearray", "named": "bytes"}
    assert (type(back), back == data) == (bytes, True)
    assert f.echo.remote(data) == data
    assert f.echo.remote(bytearray(data)) == bytearray(data)


def test_large_memory_arrives_writable_there_and_here() -> None:
    block = f.Block(bytearray(8 << 20))
    back = f.marked.remote(block)
    back.memory[1] = 2
    assert bytes(back.memory[:3]) == b"\1\2\0"
    assert block.memory[0] == 0
    again = f.marked.spawn(block)
    for result in (again.get(), minimodal.FunctionCall.from_id(again.object_id).get()):
        result.memory[1] = 2


def test_a_large_argument_is_in_the_memory_of_its_container_once() -> None:
    before = f.peak_memory.remote()
    after = f.peak_memory.remote(bytes(64 << 20))
    assert after - before < 1.25 * (64 << 20)


def test_arguments_are_what_they_were_when_the_call_was_made() -> None:
    memory = bytearray(1 << 20)

    def refilled() -> Iterator[f.Block]:
        for i in range(6):
            memory[1] = i
            yield f.Block(memory)

    assert [block.memory[1] for block in f.marked.map(refilled())] == [0, 1, 2, 3, 4, 5]
    calls = []
    for i in range(4):
        memory[1] = i
        calls.append(f.marked.spawn(f.Block(memory)))
    memory[1] = 9
    assert [call.get().memory[1] for call in calls] == [0, 1, 2, 3]


# --- nested calls -------------------------------------------------------------------------------------


def test_a_function_calls_another() -> None:
    assert f.sum_of_squares.remote(10) == sum(i * i for i in range(10))


def test_f106_recursion_does_not_deadlock_with_one_container() -> None:
    assert f.factorial.remote(6) == 720


def test_f106_recursion_without_end_is_an_error() -> None:
    with pytest.raises(InvalidError, match="levels deep"):
        f.endless.remote(0)


# --- variants and look-up -----------------------------------------------------------------------------


def test_with_options_is_another_function() -> None:
    patient = f.sleeps.with_options(timeout=30, max_containers=1)
    assert patient.remote(0.01) == 0.01
    assert patient.with_options(cpu=0.25).remote(0.02) == 0.02


def test_with_wrong_options() -> None:
    with pytest.raises(InvalidError, match="Did you mean 'timeout'"):
        f.square.with_options(timout=3)


def test_function_by_name() -> None:
    assert minimodal.Function.from_name("core", "square").remote(3) == 9


def test_function_by_unknown_name() -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        minimodal.Function.from_name("core", "nothing").remote()


def test_nothing_is_pickled_for_no_arguments() -> None:
    assert f.where.remote()["cwd"]
    assert context.running_client() is not None
