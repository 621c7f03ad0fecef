"""`Platform`: an engine with the suite's app on one backend, and what a test asks of it."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from minimodal.config import load_config
from minimodal.engine.engine import Engine
from minimodal.engine.events import Event
from minimodal.function import Function
from minimodal.host import Host
from tests.faults import functions

RECOVERS_WITHIN = 5.0


class Platform:
    """Made by `open_platform`."""

    def __init__(self, host: Host, backend: str) -> None:
        self.host = host
        self.backend = backend
        self.victim: Function[Any, Any, Any] = functions.do
        self._threads = ThreadPoolExecutor(16, "caller")

    @property
    def engine(self) -> Engine:
        return self.host.engine

    def start(self, function: Function[Any, Any, Any], *args: Any) -> Future[Any]:
        """`function.remote(*args)` in a thread of its own."""
        return self._threads.submit(function.remote, *args)

    def on_loop(self, work: Callable[[], Any]) -> Any:
        """The value of `work()`, run on the engine's loop."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

        self.host.loop.call_soon_threadsafe(run)
        return future.result(10)

    def run(self, work: Callable[..., Any], *args: Any) -> Any:
        """The value of `await work(*args)` on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work(*args), self.host.loop).result(10)

    def sweep(self) -> str:
        """What every test ends with: the function works again, and no call is left."""
        victim, self.victim = self.victim, functions.do
        started = time.monotonic()
        deadline = started + RECOVERS_WITHIN
        assert self.start(victim, "fine").result(RECOVERS_WITHIN) == "fine"
        took = time.monotonic() - started
        while left := self.on_loop(self._unfinished):
            assert time.monotonic() < deadline, f"left: {left}"
            time.sleep(0.01)  # cancelled calls leave their slot when their executor says so
        return f"next call {took:.2f} s"

    def _unfinished(self) -> list[str]:
        calls = [repr(live) for live in self.engine.calls.values() if live.outcome is None]
        pools = [repr(pool) for pool in self.engine.pools.values() if pool.running or pool.queue]
        return calls + pools

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)


class Watch:
    """Events of one kind, in order: `next` waits for one that holds some words."""

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.seen: list[Event] = []

    def add(self, event: Event) -> None:
        self._events.put(event)

    def next(self, words: str = "", kind: str = "log", timeout: float = 15.0) -> Event:
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} {words!r}; seen: {self.seen[-20:]}") from None
            self.seen.append(event)
            if event.kind == kind and words in str(event.fields.get("text", event.fields)):
                return event

    def line(self, words: str, timeout: float = 15.0) -> str:
        return str(self.next(words, "log", timeout).fields["text"])

    def rest(self) -> list[Event]:
        while True:
            try:
                self.seen.append(self._events.get_nowait())
            except queue.Empty:
                return self.seen


@contextmanager
def watch(platform: Platform) -> Iterator[Watch]:
    """The engine's events from here on."""
    found = Watch()
    stop = platform.on_loop(lambda: platform.engine.events.subscribe(found.add))
    try:
        yield found
    finally:
        platform.on_loop(stop)


@contextmanager
def open_platform(backend: str) -> Iterator[Platform]:
    with Host(load_config({"backend": backend})) as host, functions.app.run():
        platform = Platform(host, backend)
        try:
            yield platform
        finally:
            platform.close()


def on(*names: str) -> pytest.MarkDecorator:
    """Run on these backends only."""
    marks = {"bubblewrap": [pytest.mark.bubblewrap], "docker": [pytest.mark.docker]}
    params = [pytest.param(name, marks=marks.get(name, [])) for name in names]
    return pytest.mark.parametrize("platform", params, indirect=True)
