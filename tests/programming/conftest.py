"""One platform for a module and backend, and what its functions print."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minimodal.host import Host
from tests.core.conftest import host, leaves_nothing

__all__ = ["host", "leaves_nothing"]


one_backend = pytest.mark.parametrize("leaves_nothing", ["process"], indirect=True, scope="module")
"""For what happens in the engine and the executor alone, and takes its time."""


@pytest.fixture(scope="module")
def running(request: pytest.FixtureRequest, host: Host) -> Iterator[Host]:
    """The module's `APP` runs."""
    with request.module.APP.run():
        yield host


def wait_until(host: Host, holds: Callable[[], bool]) -> None:
    """Wait for what the engine's loop changes and nobody announces."""

    async def until() -> None:
        while not holds():  # noqa: ASYNC110  # it changes without an event
            await asyncio.sleep(0.005)

    asyncio.run_coroutine_threadsafe(until(), host.loop).result(20)


class Printed:
    """The lines that functions print, and a wait for the one that is expected."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._changed = threading.Condition()

    def add(self, event: Any) -> None:
        if event.kind == "log":
            with self._changed:
                self.events.append(event)
                self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        return [event.fields["text"] for event in self.events]

    def wait_for(self, holds: Callable[[list[str]], bool], within: float = 10) -> list[str]:
        with self._changed:
            found = self._changed.wait_for(lambda: holds(self.lines), within)
        assert found, f"not printed: {self.lines}"
        return self.lines


@pytest.fixture
def printed(host: Host) -> Iterator[Printed]:
    printed = Printed()
    stop = host.engine.events.subscribe(printed.add)
    yield printed
    stop()
