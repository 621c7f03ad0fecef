"""Latency, throughput and transfer of calls, against ProcessPoolExecutor in the same run.

    uv run python tests/benchmarks/bench_calls.py [backend …]

Prints one table. Read the ratios: absolute figures depend on the machine and on what else runs.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import lone

import minimodal

app = minimodal.App("bench")
arrays = minimodal.App("bench-arrays", image=minimodal.Image.debian_slim().pip_install("numpy"))

N_LATENCY = 1000
N_MAP = 10_000
N_COLD = 7


@app.function()
def nothing(x: Any = None) -> Any:
    return x


@app.function()
async def async_nothing(x: Any = None) -> Any:
    return x


@arrays.function()
def array_nothing(x: Any) -> Any:
    return x


@app.function()
def items(n: int) -> Any:
    yield from range(n)


def plain(x: Any = None) -> Any:
    return x


def timed(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def latencies(call: Callable[[], Any]) -> tuple[float, float]:
    """p50 and p99 in microseconds."""
    for _ in range(100):
        call()
    samples = sorted(timed(call) for _ in range(N_LATENCY))
    return statistics.median(samples) * 1e6, samples[int(N_LATENCY * 0.99)] * 1e6


async def async_latencies() -> tuple[float, float]:
    samples = []
    for _ in range(N_LATENCY):
        started = time.perf_counter()
        await nothing.remote.aio()
        samples.append(time.perf_counter() - started)
    samples.sort()
    return statistics.median(samples) * 1e6, samples[int(N_LATENCY * 0.99)] * 1e6


def pool_figures() -> dict[str, float]:
    import numpy

    with ProcessPoolExecutor(2) as pool:
        p50, p99 = latencies(lambda: pool.submit(plain).result())
        seconds = timed(lambda: list(pool.map(plain, range(N_MAP))))
        big = os.urandom(100 << 20)
        transfer = min(timed(lambda: pool.submit(plain, big).result()) for _ in range(3))
        array = numpy.frombuffer(big, dtype=numpy.uint8)
        arrays_there = min(timed(lambda: pool.submit(plain, array).result()) for _ in range(3))
    return {
        "warm call p50, µs": p50,
        "warm call p99, µs": p99,
        "map of 10,000, calls/s": N_MAP / seconds,
        "100 MB bytes round trip, ms": transfer * 1e3,
        "100 MB numpy round trip, ms": arrays_there * 1e3,
    }


def first_line(command: list[str], environment: dict[str, str]) -> float:
    """Seconds until the program has printed something."""
    started = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        took = time.perf_counter() - started
        process.communicate()
    return took


def cold_starts(backend: str) -> dict[str, float]:
    """Of a file that imports nothing, and of this one; by turns with `docker run` of the same image."""
    run = ["docker", "run", "--rm", "python:3.11-slim", "true"]
    seconds: dict[str, list[float]] = {}
    with lone.app.run():
        lone.nothing.remote()
        for i in range(N_COLD):
            work = {
                "cold start, ms": lone.nothing.with_options(timeout=100 + i).remote,
                "cold start of a file that imports asyncio, ms": nothing.with_options(
                    timeout=100 + i
                ).remote,
            }
            if backend == "docker":
                work["docker run … true, ms"] = partial(subprocess.run, run, check=True)
            for name, each in work.items():
                seconds.setdefault(name, []).append(timed(each))
    return {name: 1e3 * statistics.median(samples) for name, samples in seconds.items()}


def figures(backend: str) -> dict[str, float]:
    import numpy

    from minimodal.config import load_config  # not above: containers import this file too
    from minimodal.host import Host

    found: dict[str, float] = {}
    environment = {**os.environ, "MINIMODAL_BACKEND": backend}
    hello = Path(__file__).parents[2] / "examples" / "hello.py"
    command = [sys.executable, "-m", "minimodal", "run", "-q", str(hello)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    found["process start to first result, ms"] = 1e3 * min(
        first_line(command, environment) for _ in range(3)
    )
    found["minimodal run hello.py, ms"] = 1e3 * min(
        timed(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))
        for _ in range(3)
    )
    with Host(load_config({"backend": backend})), app.run():
        nothing.remote()
        found |= cold_starts(backend)
        found["warm call p50, µs"], found["warm call p99, µs"] = latencies(nothing.remote)
        found["warm await p50, µs"], found["warm await p99, µs"] = asyncio.run(async_latencies())
        list(nothing.map(range(100)))
        found["map of 10,000, calls/s"] = N_MAP / timed(lambda: list(nothing.map(range(N_MAP))))
        list(items.remote_gen(10))
        seconds = timed(lambda: list(items.remote_gen(N_MAP)))
        found["generator, items/s"] = N_MAP / seconds
        big = os.urandom(100 << 20)
        nothing.remote(big)
        found["100 MB bytes round trip, ms"] = 1e3 * min(
            timed(lambda: nothing.remote(big)) for _ in range(3)
        )
        array = numpy.frombuffer(big, dtype=numpy.uint8)
        with arrays.run():
            array_nothing.remote(array)
            found["100 MB numpy round trip, ms"] = 1e3 * min(
                timed(lambda: array_nothing.remote(array)) for _ in range(3)
            )
    return found


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    backends = sys.argv[1:] or ["process", "bubblewrap", "docker"]
    columns = {"ProcessPoolExecutor": pool_figures()}
    for backend in backends:
        columns[backend] = figures(backend)
    table = Table("", *columns)
    for row in dict.fromkeys(name for column in columns.values() for name in column):
        cells = [f"{c[row]:,.0f}" if row in c else "" for c in columns.values()]
        table.add_row(row, *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
