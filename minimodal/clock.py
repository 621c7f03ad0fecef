"""The clock that the engine reads: wall time and monotonic time apart, so that a test can move both.

Owns no state but a test's. Nothing in the engine calls `time.time()` or `time.monotonic()` itself.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time is for dates that people and databases see; deadlines use monotonic time only."""

    def now(self) -> float:
        """Seconds since the epoch; may jump, back too."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow, from an unknown start."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that begins at `now` and `monotonic`, in seconds, and stands still until a test moves it."""

    def __init__(self, now: float = 1_700_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now = now
        self._monotonic = monotonic

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since it was made, and where it began."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass: both clocks go on."""
        if seconds < 0:
            raise ValueError("time does not pass backwards; use `jump` for the wall clock")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock only, by `seconds` either way: NTP, a person, or a suspended machine."""
        self._now += seconds
