"""Breath: a busy loop gives the GIL away now and then, while threads of ours have work.

A loop with no idle moment releases the GIL only for instants, which a waking thread misses. Measured
on uvloop with callbacks of 0.5 ms back to back, the writing thread of the store made 0 to 15 commits
a second; with this thousands, for 5 % of the loop's time, and that only while somebody waits.
"""

from __future__ import annotations

import asyncio
import time

INTERVAL, BREATH = 0.001, 0.000_05  # seconds


class Breath:
    """Count work in with `add`, out with `done`, on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._outstanding = 0
        self._scheduled = False

    def add(self) -> None:
        self._outstanding += 1
        self._schedule()

    def done(self, count: int = 1) -> None:
        self._outstanding -= count

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(INTERVAL, self._breathe)

    def _breathe(self) -> None:
        self._scheduled = False
        if self._outstanding:
            time.sleep(BREATH)
            self._schedule()
