"""`Tally`: what a pool's calls came to: counts by outcome, times, and the last minutes.

Numbers only, updated once for each call at its end; the gateway shows them as metrics and charts.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from minimodal.types import CallState

BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)  # seconds
SLICE = 5.0  # seconds of one column of the chart
SLICES = 60


class Times:
    """A histogram of durations."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Two clocks of one machine may differ by a little: what is below zero is zero."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        if seconds > 0:
            self.total += seconds

    def include(self, other: Times) -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """An estimate: evenly between the bounds of the bucket in which that share of all lies."""
        wanted = share * sum(self.counts)
        seen, low = 0, 0.0
        for high, count in zip((*BOUNDS, BOUNDS[-1]), self.counts, strict=True):
            if count and seen + count >= wanted:
                return low + (high - low) * (wanted - seen) / count
            seen, low = seen + count, high
        return None

    def plain(self) -> dict[str, Any]:
        return {"counts": list(self.counts), "total": self.total}


class Tally:
    """One per pool: a new version of a function begins at zero."""

    __slots__ = (
        "_containers",
        "_failed",
        "_finished",
        "_first",
        "_queued",
        "cold_starts",
        "service",
        "states",
        "waits",
    )

    def __init__(self) -> None:
        self.states = dict.fromkeys((s.value for s in CallState if s.finished), 0)
        self.waits = Times()
        self.service = Times()
        self.cold_starts = Times()
        self._first = 0  # number of the slice that the last column shows
        self._finished = [0] * SLICES
        self._failed = [0] * SLICES
        self._queued = [0] * SLICES
        self._containers = [0] * SLICES

    def add(self, state: CallState, now: float, queued_at: float, started_at: float | None) -> None:
        """A call has ended. Times are the loop's; `started_at` None: it never began."""
        self.states[state.value] += 1
        if started_at is not None:
            self.waits.add(started_at - queued_at)
            self.service.add(now - started_at)
        if int(now / SLICE) != self._first:
            self._move_to(now)
        self._finished[-1] += 1
        if state is not CallState.OK and state is not CallState.CANCELLED:
            self._failed[-1] += 1

    def include(self, other: Tally) -> None:
        """Add the counts and times of another, not its last minutes."""
        for state, count in other.states.items():
            self.states[state] += count
        self.waits.include(other.waits)
        self.service.include(other.service)
        self.cold_starts.include(other.cold_starts)

    def sample(self, now: float, queued: int, containers: int) -> None:
        """How long the queue is and how many containers there are; of a slice the most counts."""
        self._move_to(now)
        self._queued[-1] = max(self._queued[-1], queued)
        self._containers[-1] = max(self._containers[-1], containers)

    def _move_to(self, now: float) -> None:
        number = int(now / SLICE)
        gone = min(number - self._first, SLICES)
        if gone > 0:
            for column in (self._finished, self._failed, self._queued, self._containers):
                column[:] = column[gone:] + [0] * gone
        self._first = number

    def plain(self, now: float) -> dict[str, Any]:
        """JSON-able. `recent…`: calls that ended, calls that failed, the queue and the containers, in
        slices of `slice` seconds, oldest first."""
        self._move_to(now)
        return {
            "states": dict(self.states),
            "waits": self.waits.plain(),
            "service": self.service.plain(),
            "cold_starts": self.cold_starts.plain(),
            "p50": self.service.quantile(0.5),
            "p95": self.service.quantile(0.95),
            "slice": SLICE,
            "recent": list(self._finished),
            "recent_failed": list(self._failed),
            "recent_queued": list(self._queued),
            "recent_containers": list(self._containers),
        }
