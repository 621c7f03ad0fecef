"""`LoopClient`: the engine as a Client for other threads of this process.

Work is put into an inbox and the loop is woken once for all that came meanwhile: a wake-up costs
more than the work itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from minimodal.errors import NotRunningError
from minimodal.pickling import kept
from minimodal.types import Call, Payload

from .lease import Leases

if TYPE_CHECKING:
    from minimodal.protocols import Abandon, Answered, Done

    from .engine import Engine
    from .offline import Offline


class LoopClient:
    """Implements `protocols.Client`. Thread-safe."""

    def __init__(self, engine: Engine | Offline, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._loop = loop
        self._inbox: deque[Callable[[], None]] = deque()
        self._scheduled = False
        self._closed = False
        self._reason = ""
        self._leases = Leases(cast("Engine", engine), self._post, self._inbox.append, self._drain)

    def is_alive(self) -> bool:
        return not self._closed

    def run(self, call: Call, done: Done) -> Abandon:
        call.payload = kept(call.payload)
        self._post(partial(self._engine.run, call, done))
        return partial(self._cancel, call.id)

    def run_blocking(self, call: Call, done: Done) -> Abandon:
        try:
            if self._closed or not self._leases.run(call, done):
                self._post(partial(self._leases.begin, call, done))
        except BaseException:  # Ctrl-C, at any moment
            with suppress(NotRunningError):
                self._cancel(call.id)
            raise
        return partial(self._cancel, call.id)

    def _cancel(self, call_id: str) -> None:
        self._post(partial(self._engine.cancel, call_id))

    def ask(
        self, op: str, fields: Mapping[str, Any], payload: Payload, answered: Answered
    ) -> Abandon:
        from .ops import Request

        request = Request(self._engine, op, fields, kept(payload), answered)
        self._post(request.start)
        return partial(self._post, request.abandon)

    def close(self, reason: str = "") -> None:
        self._closed = True
        self._reason = self._reason or reason

    def _post(self, work: Callable[[], None]) -> None:
        if self._closed:
            because = f": {self._reason}" if self._reason else ""
            raise NotRunningError(f"the engine of this process has stopped{because}")
        self._inbox.append(work)
        # Two threads may both schedule: an empty inbox is harmless, a missed wake-up is not.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon_threadsafe(self._drain)

    def _drain(self) -> None:
        self._scheduled = False
        inbox = self._inbox
        with self._engine.cork:
            while inbox:
                inbox.popleft()()
