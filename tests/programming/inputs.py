"""The user's script of test_concurrency.py and test_batching.py."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import minimodal

app = minimodal.App("inputs")

mark: contextvars.ContextVar[str] = contextvars.ContextVar("mark", default="none")
meeting = threading.Barrier(4)
arrived: list[str] = []
complete = asyncio.Event()

# --- concurrency --------------------------------------------------------------------------------------


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=4)
def meet(name: str) -> tuple[str, str, str | None, int]:
    """Returns only when four inputs are here at the same time."""
    before = mark.get()
    mark.set(name)
    print(f"{name} in ", end="")
    meeting.wait(timeout=20)
    print(f"{mark.get()} out")
    return before, mark.get(), minimodal.current_function_call_id(), os.getpid()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=8, target_inputs=4)
async def meet_on_loop(name: str, expected: int) -> tuple[str, str]:
    before = mark.get()
    mark.set(name)
    print(f"{name} in ", end="")
    arrived.append(name)
    if len(arrived) == expected:
        complete.set()
    await complete.wait()
    print(f"{mark.get()} out")
    return before, mark.get()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=4)
def numbers(name: str, n: int) -> Iterator[tuple[int, str]]:
    mark.set(name)
    for i in range(n):
        yield i, mark.get()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=4)
async def async_numbers(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=3)
def stays(name: str, seconds: float) -> tuple[str, int]:
    print(f"{name} begins")
    time.sleep(seconds)
    return name, os.getpid()


@app.function(max_containers=1)
@minimodal.concurrent(max_inputs=3)
async def stays_on_loop(name: str, seconds: float) -> tuple[str, int]:
    print(f"{name} begins")
    try:
        await asyncio.sleep(seconds)
    finally:
        print(f"{name} ends")
    return name, os.getpid()


@app.function(max_containers=1, timeout=1, startup_timeout=30)
@minimodal.concurrent(max_inputs=3)
async def short_timeout(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@app.cls(max_containers=1)
@minimodal.concurrent(max_inputs=4)
class Room:
    @minimodal.enter()
    def open(self) -> None:
        self.together = threading.Barrier(4)

    @minimodal.method()
    def meet(self, n: int) -> int:
        self.together.wait(timeout=20)
        return n


@app.function(max_containers=1)
def alone(name: str) -> tuple[str, str | None, str | None]:
    """What one input sees of the one before, and a thread of it that inherits no context."""
    before = mark.get()
    mark.set(name)
    seen: list[str | None] = []
    thread = threading.Thread(target=lambda: seen.append(minimodal.current_function_call_id()))
    thread.start()
    thread.join()
    return before, seen[0], minimodal.current_function_call_id()


# --- batching -----------------------------------------------------------------------------------------


@app.function(max_containers=1)
@minimodal.batched(max_batch_size=4, wait_ms=60_000)
def add(xs: list[int], ys: list[int]) -> list[tuple[int, int]]:
    """The sum and the size of the batch."""
    assert isinstance(xs, list)
    return [(x + y, len(xs)) for x, y in zip(xs, ys, strict=True)]


@app.function(max_containers=1)
@minimodal.batched(max_batch_size=100, wait_ms=50)
async def sizes(xs: list[Any]) -> list[int]:
    if "raise" in xs:
        raise LookupError(f"not in a batch of {len(xs)}")
    if "short" in xs:
        return [0]
    if "text" in xs:
        return "text"  # type: ignore[return-value]  # the mistake is the point
    if "lambda" in xs:
        return [(lambda: 0) if x == "lambda" else Unpicklable() for x in xs]  # type: ignore[misc]
    return [len(xs) for _ in xs]


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


@app.function(max_containers=1, timeout=1, startup_timeout=30)
@minimodal.batched(max_batch_size=3, wait_ms=60_000)
def slow(seconds: list[float]) -> list[float]:
    print("batch begins")
    time.sleep(max(seconds))
    return seconds


@app.cls(max_containers=1)
class Model:
    scale: int = minimodal.parameter(default=1)

    @minimodal.batched(max_batch_size=3, wait_ms=60_000)
    async def predict(self, xs: list[int]) -> list[tuple[int, int]]:
        return [(self.scale * x, len(xs)) for x in xs]
