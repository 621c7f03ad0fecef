"""The user's script of test_nested.py: functions that call functions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import minimodal

app = minimodal.App("nesting")


@app.function()
def double(x: int) -> int:
    return 2 * x


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
def every_way(x: int) -> dict[str, Any]:
    call = double.spawn(x)
    return {
        "remote": double.remote(x),
        "map": list(double.map(range(x))),
        "unordered": sorted(double.map(range(x), order_outputs=False)),
        "starmap": list(double.starmap([(x,), (x + 1,)])),
        "for_each": double.for_each(range(3)),
        "remote_gen": list(count.remote_gen(x)),
        "spawn": call.get(),
        "from_id": minimodal.FunctionCall.from_id(call.object_id).get(),
        "from_name": minimodal.Function.from_name("nesting", "double").remote(x),
        "variant": double.with_options(timeout=30).remote(x),
        "gather": minimodal.gather(double.spawn(1), double.spawn(2)),
        "stats": double.get_current_stats().num_total_runners > 0,
    }


@app.function()
async def every_way_awaited(x: int) -> dict[str, Any]:
    call = await double.spawn.aio(x)
    return {
        "remote": await double.remote.aio(x),
        "at once": await asyncio.gather(*(double.remote.aio(n) for n in range(x))),  # noqa: TID251
        "map": [each async for each in double.map.aio(range(x))],
        "remote_gen": [each async for each in count.remote_gen.aio(x)],
        "spawn": await call.get.aio(),
    }


@app.function()
async def blocking_in_async(x: int) -> tuple[int, list[int], int]:
    return double.remote(x), list(double.map(range(x))), double.spawn(x).get()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=10)
async def stalls_itself(n: int, how: str) -> int:
    """Blocks the loop on which the nested call could run, with room for it."""
    if n == 0:
        return 0
    if how == "remote":
        return 1 + stalls_itself.remote(n - 1, how)
    if how == "spawn":
        return 1 + stalls_itself.spawn(n - 1, how).get()
    return 1 + next(iter(stalls_itself.map([n - 1], kwargs={"how": how})))


began = asyncio.Event()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=10)
async def waits_for_its_own_loop(first: bool) -> int:
    if not first:
        began.set()
        await asyncio.sleep(600)
    call = await waits_for_its_own_loop.spawn.aio(False)
    await began.wait()
    try:
        return call.get()
    finally:
        await call.cancel.aio()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=2)
def recurses_in_threads(n: int) -> int:
    return 1 if n == 0 else sum(recurses_in_threads.map([n - 1, n - 1]))


@app.function(max_containers=1)
async def recurses_async(n: int) -> int:
    return (
        n
        if n < 2
        else await recurses_async.remote.aio(n - 1) + await recurses_async.remote.aio(n - 2)
    )


@app.function(max_containers=1)
def calls_itself_in_a_thread(n: int) -> int:
    """The thread inherits no context variables."""
    if n == 0:
        return 0
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(calls_itself_in_a_thread.remote(n - 1)))
    thread.start()
    thread.join()
    return 1 + results[0]


@app.function(max_containers=1)
def ping(n: int) -> int:
    return n if n == 0 else pong.remote(n - 1)


@app.function(max_containers=1)
def pong(n: int) -> int:
    return n if n == 0 else ping.remote(n - 1)


@app.function()
def apply(function: Any, *args: Any) -> Any:
    return function.remote(*args)


@app.function()
def gives_a_handle() -> tuple[Any, Any]:
    return double, double.spawn(21)


class Refused(Exception):
    pass


@app.function()
def refuses() -> None:
    raise Refused("by the innermost")


@app.function()
def passes_on() -> None:
    refuses.remote()
