"""The task that starts and stops containers: it asks the autoscaler what to do and does it.

It sleeps until something changed (a call waits, a container ended) or the next deadline (a container
has been idle for its window).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from .engine import Engine
    from .pool import Pool


class Planner:
    """One per engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = anyio.Event()

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        while True:
            wait = self._step()
            with anyio.move_on_after(wait):
                await self._wake.wait()
            self._wake = anyio.Event()

    def _step(self) -> float:
        """Do what is due; seconds until the next thing is."""
        now = self._engine.loop.time()
        due = 3600.0
        for pool in list(self._engine.pools.values()):
            due = min(due, self._scale(pool, now))
        return due

    def _scale(self, pool: Pool, now: float) -> float:
        spec = pool.spec
        live = [s for s in pool.sessions if not s.stopping]
        waiting = len(pool.queue) + pool.running
        wanted = max(-(-waiting // spec.max_inputs), spec.scaling.min_containers)
        wanted = min(wanted, spec.scaling.max_containers or 16)
        if pool.closed:
            wanted = 0
        if pool.queue and now < pool.retry_start_at:
            return pool.retry_start_at - now
        if pool.queue or len(live) < spec.scaling.min_containers:
            for _ in range(wanted - len(live)):
                pool.start_session()
        due = 3600.0
        idle = [s for s in live if s.ready and not s.busy]
        for session in idle:
            rest = session.idle_since + spec.scaling.scaledown_window - now
            if rest <= 0 and len(live) > spec.scaling.min_containers:
                live.remove(session)
                session.request_stop()
            else:
                due = min(due, max(rest, 0.05))
        return due
