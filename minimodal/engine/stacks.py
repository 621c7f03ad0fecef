"""Asking an executor where its code is. The answers come from other processes: text for people only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.errors import ExecutionError
from minimodal.wire import Frame

if TYPE_CHECKING:
    from .calls import LiveCall
    from .slot import Slot

WITHIN = 5.0  # seconds
MAX_THREADS, MAX_FRAMES = 200, 1000


class Stacks:
    """Of one slot. A loop that is free knows the stack of one call, and answers at once; else the
    supervisor's answer comes first, with all threads of the process."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._came = anyio.Event()
        self._waiting = 0
        self._threads: list[dict[str, Any]] = []
        self._seq: int | None = None  # of the call that they are of; None: of the process

    def answer(self, frame: Frame, seq: int | None) -> None:
        """A STACK frame of the supervisor, or of the executor about the call `seq`; nothing is
        read of one that nobody asked for."""
        if not self._waiting:
            return
        self._threads = [_checked(each) for each in json.loads(frame.meta)[:MAX_THREADS]]
        self._seq = seq
        self._came.set()
        self._came = anyio.Event()

    async def of(self, live: LiveCall) -> list[dict[str, Any]]:
        """The stack of the call, or those of its process. Raises ExecutionError where it is silent."""
        self._waiting += 1
        try:
            with anyio.move_on_after(WITHIN):
                self._slot.ask_for_stack(live)
                while live.slot is self._slot:
                    await self._came.wait()
                    known = self._seq in (None, live.seq)
                    if known and any(each["frames"] for each in self._threads):
                        return self._threads
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._threads = []
        raise ExecutionError(
            f"the process of {live.call.id} does not say where it is: it may be stopped, or have "
            "ended, or its code took the signal for itself"
        )


def _checked(thread: Any) -> dict[str, Any]:
    """What a container sent, as what it should be. Raises ValueError, TypeError, KeyError."""
    frames = [
        [str(file), int(line), str(function), str(text)]
        for file, line, function, text in thread["frames"][-MAX_FRAMES:]
    ]
    return {"name": str(thread["name"]), "frames": frames}
