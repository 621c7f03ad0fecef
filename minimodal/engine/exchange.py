"""`Exchange`: one web request while the engine has it. Messages go in, messages come out.

Both directions are bounded: what the app has not read waits in its call's window, which holds the
sender back, and what the client has not read is held back by the app's own credits.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from minimodal.types import CallState, Failure, FunctionSpec, Payload, WebEndpoint

from .calls import LiveCall

if TYPE_CHECKING:
    from .engine import Engine


class Exchange:
    """Made by `Web.open`. Who opened it reads until the end, or cancels."""

    __slots__ = ("_engine", "_live", "_passed_on", "_window")

    def __init__(self, engine: Engine, live: LiveCall) -> None:
        self._engine = engine
        self._live = live
        self._passed_on = 0  # messages
        assert live.inputs is not None
        self._window = live.inputs
        live.then(lambda _: self._window.close())

    @property
    def call_id(self) -> str:
        return self._live.call.id

    @property
    def failure(self) -> Failure | None:
        """Why it ended, if it did not end well. Only of meaning after its end."""
        return self._live.outcome.failure if self._live.outcome else None

    @property
    def state(self) -> CallState:
        return self._live.state

    @property
    def queued(self) -> float:
        """Seconds from its arrival to its start."""
        return max(0.0, self._live.started_at - self._live.queued_at)

    async def send(self, message: bytes) -> bool:
        """Give the app one more message. False: it has ended."""
        return await self._window.send(message)

    def send_nowait(self, message: bytes) -> None:
        self._window.send_nowait(message)

    async def receive(self) -> list[Payload]:
        """What the app has sent, at least one message; none after its end.

        Who asks for more has passed on what came before: the app may send as much again.
        """
        live = self._live
        stream = live.stream
        assert stream is not None
        if self._passed_on and live.slot is not None:
            live.slot.credit(live, self._passed_on)
        while True:
            items = stream.take(64)
            self._passed_on = len(items)
            if items:
                return items
            if live.outcome is not None:
                return []
            changed = self._engine.loop.create_future()  # an Event costs three times as much
            stream.on_change(partial(_happened, changed))
            await changed

    def cancel(self) -> None:
        """Stop it, wherever it is. Not an error if it has ended."""
        self._engine.cancel(self._live.call.id)


def _happened(changed: asyncio.Future[None]) -> None:
    if not changed.done():  # whoever waited may have been cancelled
        changed.set_result(None)


def web_of(spec: FunctionSpec) -> list[tuple[str, WebEndpoint]]:
    """The endpoints of a function or class, each with its method's name ("" of a function)."""
    return [*([("", spec.web)] if spec.web else []), *spec.web_methods]
