"""`InputWindow`: what a running call is still to read, bounded; kept until the call has read it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import anyio

from minimodal.types import Payload

if TYPE_CHECKING:
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
