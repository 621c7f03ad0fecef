"""`Gathering`: when the waiting calls of a @batched function make a batch.

A batch is due when it is full, or when its first member has waited long enough. Calls wait in the
pool's own queue, so fairness, quotas and cancellation are the same as for any other call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from minimodal.types import Batching

if TYPE_CHECKING:
    from .calls import LiveCall
    from .scheduler import FairQueue


class Gathering:
    """Of one pool. Calls `wake` when time alone has made a batch due."""

    def __init__(
        self, batching: Batching, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]
    ) -> None:
        self.size = batching.max_batch_size
        self._wait = batching.wait
        self._loop = loop
        self._wake = wake
        self._due: float | None = None  # when the batch that gathers now is run at the latest
        self._timer: asyncio.TimerHandle | None = None

    def is_due(self, queue: FairQueue[LiveCall]) -> bool:
        """Whether what waits is to be run now; else `wake` is called when it is."""
        if self._due is None:
            self._due = min(live.queued_at for live in queue) + self._wait
        if len(queue) >= self.size or self._loop.time() >= self._due:
            return True
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._fire)
        return False

    def taken(self) -> None:
        """A batch was taken from the queue: what is left, or comes, gathers anew."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._wake()
