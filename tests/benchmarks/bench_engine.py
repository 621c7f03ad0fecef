"""Durable spawns per second, fairness and memory through the whole engine, as a user calls it.

    python tests/benchmarks/bench_engine.py [--backend process] [--queued 1000000] [--only NAME]

Prints one line for each figure. Needs a real disk under the temporary directory, and two minutes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import minimodal

app = minimodal.App("bench-engine")


@app.function(max_containers=1)
def hold(number: int) -> None:
    time.sleep(3600)


@app.function(max_containers=2)
def short(number: int) -> None:
    time.sleep(0.005)


@app.function(max_containers=10)
@minimodal.concurrent(max_inputs=1000)
async def in_flight(number: int) -> None:
    await asyncio.sleep(3600)


def say(name: str, figure: str) -> None:
    print(f"{name:<44} {figure}", flush=True)


def rss() -> float:
    """Megabytes of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def spawns(host: Any) -> None:
    before = time.perf_counter()
    hold.spawn_map(range(100_000))
    say("durable spawns/s, spawn_map", f"{100_000 / (time.perf_counter() - before):,.0f}")

    async def many(count: int, at_once: int) -> None:
        numbers = iter(range(count))

        async def one() -> None:
            for number in numbers:
                await hold.spawn.aio(number)

        await asyncio.gather(*(one() for _ in range(at_once)))  # noqa: TID251  # a user's script

    before = time.perf_counter()
    asyncio.run(many(20_000, 200))
    say(
        "durable spawns/s, spawn.aio, 200 at once",
        f"{20_000 / (time.perf_counter() - before):,.0f}",
    )
    before = time.perf_counter()
    for number in range(2_000):
        hold.spawn(number)
    say("durable spawns/s, spawn, one thread", f"{2_000 / (time.perf_counter() - before):,.0f}")


def single(host: Any) -> None:
    """One user's call against another's backlog."""

    def times() -> list[float]:
        found = []
        for number in range(30):
            before = time.perf_counter()
            short.remote(number)
            found.append(time.perf_counter() - before)
        return found

    times()  # warm
    with backlog("flood", 0):
        idle = times()
    with backlog("flood", 100_000):
        busy = times()
    extra = statistics.median(busy) - statistics.median(idle)
    say("a call, idle, median and worst", f"{_ms(statistics.median(idle))}, {_ms(max(idle))}")
    say(
        "a call, 100,000 of another user queued",
        f"{_ms(statistics.median(busy))}, {_ms(max(busy))}",
    )
    say("extra wait (one service time: 5 ms)", _ms(extra))


def shares(host: Any) -> None:
    """What users get of one pool, while all of them have work."""
    for weights in ([1.0] * 10, [1.0, 2.0, 4.0]):
        users = [f"{len(weights)} users, {number}" for number in range(len(weights))]
        for user, weight in zip(users, weights, strict=True):
            minimodal.set_quota(user, weight=weight)
            with minimodal.as_user(user):
                short.spawn_map(range(4_000))
        queued = host.engine.tenants.queued
        before = [queued(user) for user in users]
        enough = before[-1] - 400 * weights[-1]
        while queued(users[-1]) > enough:
            time.sleep(0.01)
        got = [b - queued(user) for user, b in zip(users, before, strict=True)]
        per_weight = [count / weight for count, weight in zip(got, weights, strict=True)]
        jain = sum(per_weight) ** 2 / len(users) / sum(each * each for each in per_weight)
        total, weight_sum = sum(got), sum(weights)
        off = max(
            abs(count / total * weight_sum / weight - 1)
            for count, weight in zip(got, weights, strict=True)
        )
        shown = ":".join(f"{weight:g}" for weight in weights)
        say(f"shares at weights {shown}", f"Jain {jain:.4f}, at most {off:.1%} off")
        cancel_all(host)


def million(host: Any, queued: int) -> None:
    """Memory of many queued calls, and another user's call beside them."""
    say("RSS at the start", f"{rss():,.0f} MB")
    handle = in_flight.experimental_spawn_map(range(10_000))
    wait(lambda: sum(pool.running for pool in host.engine.pools.values()) >= 10_000)
    say("RSS with 10,000 calls in flight", f"{rss():,.0f} MB")
    with minimodal.as_user("flood"):
        for _ in range(4):
            before = time.perf_counter()
            short.spawn_map(range(queued // 4))
            rate = queued / 4 / (time.perf_counter() - before)
            count = host.engine.tenants.waiting
            say(f"RSS with {count:,} queued", f"{rss():,.0f} MB ({rate:,.0f} spawns/s)")
    took = []
    with minimodal.as_user("ada"):  # who runs nothing else
        for number in range(20):
            before = time.perf_counter()
            short.remote(number)
            took.append(time.perf_counter() - before)
    figure = f"{_ms(statistics.median(took))}, {_ms(max(took))}"
    say("another user's call then, median and worst", figure)
    handle.cancel()


@contextmanager
def backlog(user: str, count: int) -> Any:
    with minimodal.as_user(user):
        short.spawn_map(range(count))
    yield
    cancel_all(HOST)


def cancel_all(host: Any) -> None:
    done = threading.Event()

    def cancel() -> None:
        for call_id in list(host.engine.calls):
            host.engine.cancel(call_id)
        done.set()

    host.loop.call_soon_threadsafe(cancel)
    done.wait()
    wait(lambda: not host.engine.calls)


def wait(holds: Callable[[], bool]) -> None:
    while not holds():
        time.sleep(0.01)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


HOST: Any = None


def main() -> None:
    global HOST
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", default="process")
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["spawns", "single", "shares", "million"])
    options = parser.parse_args()
    from minimodal.config import load_config
    from minimodal.host import Host

    names = [options.only] if options.only else ["spawns", "single", "shares", "million"]
    for name in names:
        with tempfile.TemporaryDirectory(prefix="mm-") as home:
            settings = {"backend": options.backend, "home": home, "max_queued": 10**7}
            with Host(load_config(settings)) as HOST, app.run():
                hold.spawn(0)
                short.remote(0)
                if name == "million":
                    million(HOST, options.queued)
                else:
                    {"spawns": spawns, "single": single, "shares": shares}[name](HOST)
                cancel_all(HOST)


if __name__ == "__main__":
    main()
