"""How long one scheduling decision takes: `python tests/benchmarks/bench_scheduler.py`.

Prints nanoseconds for push and for pop + finish, best of three runs, by queue length and users.
"""

from __future__ import annotations

import gc
import time
import tracemalloc

from minimodal.engine.scheduler import FairQueue, Tenants


def run(calls: int, users: int) -> tuple[float, float]:
    """(ns per push, ns per pop + finish), the queue filled first and emptied then."""
    queue: FairQueue[int] = FairQueue(Tenants())
    names = [f"user-{index}" for index in range(users)]
    owner = {call: names[call % users] for call in range(calls)}
    start = time.perf_counter_ns()
    for call in range(calls):
        queue.push(call, names[call % users])
    pushed = time.perf_counter_ns()
    while True:
        item = queue.pop()
        if item is None:
            break
        queue.finish(owner[item])
    popped = time.perf_counter_ns()
    return (pushed - start) / calls, (popped - pushed) / calls


def steady(depth: int, users: int, rounds: int = 200_000) -> float:
    """ns per push + pop + finish with the queue held at a depth."""
    queue: FairQueue[int] = FairQueue(Tenants())
    names = [f"user-{index}" for index in range(users)]
    for call in range(depth):
        queue.push(call, names[call % users])
    start = time.perf_counter_ns()
    for call in range(depth, depth + rounds):
        queue.push(call, names[call % users])
        queue.finish(names[(queue.pop() or 0) % users])
    return (time.perf_counter_ns() - start) / rounds


def bytes_per_call(calls: int) -> float:
    items = list(range(calls))
    tracemalloc.start()
    queue: FairQueue[int] = FairQueue(Tenants())
    for item in items:
        queue.push(item, "one")
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return used / calls


def main() -> None:
    gc.disable()
    print(
        f"{'queued':>9} {'users':>6} {'push ns':>8} {'pop+finish ns':>14} {'steady push+pop ns':>19}"
    )
    for calls in (1_000, 10_000, 100_000, 1_000_000):
        for users in (1, 10, 1_000):
            if users > calls:
                continue
            best = [
                min(times) for times in zip(*(run(calls, users) for _ in range(3)), strict=True)
            ]
            held = min(steady(calls, users) for _ in range(3))
            print(f"{calls:>9,} {users:>6,} {best[0]:>8.0f} {best[1]:>14.0f} {held:>19.0f}")
    print(
        f"empty queue, one user, push + pop + finish: {min(steady(0, 1) for _ in range(5)):.0f} ns"
    )
    print(
        f"memory of the queue itself at 100,000 calls: {bytes_per_call(100_000):.0f} bytes per call"
    )


if __name__ == "__main__":
    main()
