"""Durable calls per second through the store: `python tests/benchmarks/bench_store.py [directory]`.

Each submitter accepts one call at a time and waits until it is committed, as `.spawn` does. The home
lies in `directory` (default: the temporary directory), which should be on a real disk.
"""

from __future__ import annotations

import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio

from minimodal.engine.store import Store, open_store
from minimodal.home import open_home
from minimodal.types import Call, CallState, Outcome, Payload, new_id

PAYLOAD = Payload(b"x" * 60)
OK = Outcome(CallState.OK, PAYLOAD)


@asynccontextmanager
async def fresh_store(durability: Literal["normal", "full"]) -> AsyncIterator[Store]:
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(dir=directory) as root:
        async with open_store(open_home(root), "en-bench", durability=durability) as store:
            yield store


async def submit(store: Store, count: int, times: list[float]) -> None:
    for _ in range(count):
        start = time.perf_counter()
        await store.accept([Call(new_id("fc"), "app/f", PAYLOAD, durable=True)])
        times.append(time.perf_counter() - start)


async def live(store: Store, count: int, times: list[float]) -> None:
    for _ in range(count):
        start = time.perf_counter()
        call = Call(new_id("fc"), "app/f", PAYLOAD, durable=True)
        await store.accept([call])
        await store.attempt_started(call.id, 1)
        await store.record(call.id, 1, OK)
        times.append(time.perf_counter() - start)


async def bulk(store: Store, count: int, times: list[float]) -> None:
    for _ in range(count // 1000):
        start = time.perf_counter()
        calls = [Call(new_id("fc"), "app/f", PAYLOAD, durable=True) for _ in range(1000)]
        await store.accept(calls)
        times.append(time.perf_counter() - start)


async def measure() -> None:
    print(f"Python {platform.python_version()}, {asyncio.get_running_loop().__module__}")
    for durability, scenario, submitters, calls in [
        ("normal", submit, 1, 2_000),
        ("normal", submit, 64, 30_000),
        ("normal", submit, 1000, 60_000),
        ("full", submit, 1, 300),
        ("full", submit, 64, 10_000),
        ("full", submit, 1000, 40_000),
        ("normal", live, 1, 1_000),
        ("normal", live, 64, 10_000),
        ("normal", live, 1000, 30_000),
        ("normal", bulk, 4, 200_000),
    ]:
        async with fresh_store("full" if durability == "full" else "normal") as store:
            times: list[float] = []
            start, cpu = time.perf_counter(), time.process_time()
            async with anyio.create_task_group() as tasks:
                for _ in range(submitters):
                    tasks.start_soon(scenario, store, calls // submitters, times)
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            p99 = statistics.quantiles(times, n=100)[98] if len(times) > 100 else max(times)
            print(
                f"{scenario.__name__:7} {durability:6} {submitters:5} at once: "
                f"{calls / took:7.0f} calls/s, {statistics.median(times) * 1000:6.2f} ms median, "
                f"{p99 * 1000:6.2f} ms p99, {cpu / calls * 1e6:4.0f} µs CPU each, "
                f"{store.database.commits} commits",
                flush=True,
            )


if __name__ == "__main__":
    asyncio.run(measure())
    try:
        import uvloop
    except ImportError:
        pass
    else:
        uvloop.run(measure())
