"""`Exchange`: one web request while the engine has it. Messages go in, messages come out.

Both directions are bounded: what the app has not read waits in an `InputWindow` that holds its
sender back, and what the client has not read is held back by the app's own credits.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from minimodal.types import CallState, Failure, FunctionSpec, Payload, WebEndpoint

from .calls import LiveCall

if TYPE_CHECKING:
    from .engine import Engine
    from .slot import Slot

WINDOW_MESSAGES = 64
WINDOW_BYTES = 1 << 20


class InputWindow:
    """Input that was sent and not yet read by the call's code: it is kept for a slot to come."""

    __slots__ = ("_bytes", "_closed", "_room", "_seq", "_slot", "_unread")

    def __init__(self) -> None:
        self._unread: deque[bytes] = deque()
        self._bytes = 0
        self._slot: Slot | None = None
        self._seq = 0
        self._room: anyio.Event | None = None
        self._closed = False

    async def send(self, data: bytes) -> bool:
        """Wait for room, then send. False: the call has ended and reads nothing more."""
        while not self._closed and self._unread and self._full:
            self._room = anyio.Event()
            await self._room.wait()
        if self._closed:
            return False
        self.send_nowait(data)
        return True

    def send_nowait(self, data: bytes) -> None:
        """Send also where there is no room: for the one message that ends a request."""
        if self._closed:
            return
        self._unread.append(data)
        self._bytes += len(data)
        if self._slot is not None:
            self._slot.input(self._seq, Payload(data))

    @property
    def _full(self) -> bool:
        return len(self._unread) >= WINDOW_MESSAGES or self._bytes >= WINDOW_BYTES

    def connect(self, slot: Slot, seq: int) -> None:
        """The call was given to a slot, perhaps after another had given it back unread."""
        self._slot, self._seq = slot, seq
        for data in self._unread:
            slot.input(seq, Payload(data))

    def taken(self, count: int) -> None:
        for _ in range(min(count, len(self._unread))):
            self._bytes -= len(self._unread.popleft())
        self._wake()

    def close(self) -> None:
        self._closed = True
        self._slot = None
        self._unread.clear()
        self._wake()

    def _wake(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()


class Exchange:
    """Made by `Web.open`. Who opened it reads until the end, or cancels."""

    __slots__ = ("_engine", "_live", "_window", "function")

    def __init__(self, engine: Engine, live: LiveCall) -> None:
        self._engine = engine
        self._live = live
        self._window = live.inputs = InputWindow()
        self.function = live.pool.name
        live.waiters.append(lambda _: self._window.close())

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
        """What the app has sent, at least one message; none after its end."""
        live = self._live
        stream = live.stream
        assert stream is not None
        while True:
            items = stream.take(64)
            if items:
                if live.slot is not None:
                    live.slot.credit(live, len(items))
                return items
            if live.outcome is not None:
                return []
            event = anyio.Event()
            stream.on_change(event.set)
            await event.wait()

    def cancel(self) -> None:
        """Stop it, wherever it is. Not an error if it has ended."""
        self._engine.cancel(self._live.call.id)


def web_of(spec: FunctionSpec) -> list[tuple[str, WebEndpoint]]:
    """The endpoints of a function or class, each with its method's name ("" of a function)."""
    return [*([("", spec.web)] if spec.web else []), *spec.web_methods]
