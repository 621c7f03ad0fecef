"""`Deadline`: a timer that tells lateness of its own from lateness of the other side.

After a pause of this whole process (SIGSTOP, a suspended laptop, a starved machine) libuv runs what is
due before it reads what has arrived, so an answer that came in time would lose to its own timeout.
A deadline that fires late therefore waits once more, for as long as reading takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

LATE = 0.5  # seconds over its time from which on a timer says that we stood still
READING = 0.25  # seconds for what has arrived meanwhile


class Deadline:
    """Calls `work` once after `seconds`, on the loop; `cancel` is allowed at any time."""

    __slots__ = ("_due", "_handle", "_loop", "_work")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, work: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._work = work
        self._due = loop.time() + seconds
        self._handle = loop.call_later(seconds, self._fire)

    def cancel(self) -> None:
        self._handle.cancel()

    def _fire(self) -> None:
        if self._loop.time() - self._due > LATE:
            self._handle = self._loop.call_later(READING, self._work)
        else:
            self._work()
