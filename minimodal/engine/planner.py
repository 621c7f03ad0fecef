"""The task that starts and stops containers: it shows the pools to `placement.plan` and does what
that decides.

It sleeps until something changed (a call waits, a container ended) or the plan's own next deadline.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import anyio

from minimodal.errors import ResourceExhaustedError
from minimodal.types import Resources

from .autoscaler import ContainerState, ContainerView, PoolView
from .nodes import Node, never_fits
from .placement import plan

if TYPE_CHECKING:
    from .engine import Engine
    from .pool import Pool
    from .session import Session

PACE = 0.005  # seconds between two plans: a burst of calls is planned for once
BACKSTOP = 60.0  # seconds without any wake-up


class Planner:
    """One per engine."""

    def __init__(self, engine: Engine, nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes
        self._engine = engine
        self._due_at = 0.0  # when it looks again by itself
        self._wake = anyio.Event()
        self._reserved: dict[str, tuple[str, Resources]] = {}
        self.decisions: Counter[str] = Counter(start=0, stop=0, retire=0, wait=0)

    def reserve(self, owner: str, resources: Resources) -> None:
        """Take room for what is not planned: a sandbox. Functions get what is left.

        Raises ResourceExhaustedError where all that is reserved would not fit together.
        """
        left = self._left()
        reason = never_fits(resources, left)
        if reason is not None:
            others = f", as {len(self._reserved)} others run" if self._reserved else ""
            raise ResourceExhaustedError(f"a sandbox cannot run here{others}: {reason}")
        node = next(node for node in left if never_fits(resources, [node]) is None)
        self._reserved[owner] = node.name, resources
        self.wake()

    def release(self, owner: str) -> None:
        self._reserved.pop(owner, None)
        self.wake()

    def _left(self) -> tuple[Node, ...]:
        left = {node.name: node for node in self.nodes}
        for name, taken in self._reserved.values():
            node = left[name]
            left[name] = node._replace(cpu=node.cpu - taken.cpu, memory=node.memory - taken.memory)
        return tuple(left.values())

    def wake(self) -> None:
        self._wake.set()

    def wake_by(self, moment: float) -> None:
        """Look again at that time of the loop, or before."""
        if moment < self._due_at:
            self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake = anyio.Event()
            due = self._step()
            self._due_at = self._engine.loop.time() + due
            await anyio.sleep(PACE)
            with anyio.move_on_after(due):
                await self._wake.wait()

    def _step(self) -> float:
        """Do what is due; seconds until time alone may change the plan."""
        now = self._engine.loop.time()
        pools = self._engine.pools
        decided = plan([view(pool, now) for pool in pools.values()], self._left(), now)
        sessions = {s.id: s for pool in pools.values() for s in pool.sessions}
        for what, found in (
            ("start", decided.start),
            ("stop", decided.stop),
            ("retire", decided.retire),
            ("wait", decided.waiting),
        ):
            self.decisions[what] += len(found)
        for container in decided.stop:
            sessions[container].request_stop()
        for container in decided.retire:
            sessions[container].retire()
        for start in decided.start:
            pools[start.pool].start_session(start.node)
        for key in decided.waiting:
            self._lend_room(pools[key])
        due = BACKSTOP if decided.wake_at is None else decided.wake_at - now
        for pool in pools.values():
            later = pool.next_start(now)
            if later > 0 and (pool.queue or pool.scaling.min_containers):
                due = min(due, later)
        return max(due, 0.0)

    def _lend_room(self, pool: Pool) -> None:
        """Busy containers may all wait for this pool's calls: then it gets one beyond the budget."""
        if not pool.sessions and any(live.call.depth for live in pool.queue):
            pool.start_session(self.nodes[0].name)


def view(pool: Pool, now: float) -> PoolView:
    """What the autoscaler sees of a pool."""
    containers = tuple(_container(session) for session in pool.sessions)
    live = any(each.state is not ContainerState.RETIRING for each in containers)
    if live or not pool.queue:
        pool.empty_since = None
    elif pool.empty_since is None:
        pool.empty_since = now
    oldest = (slot.running_since for session in pool.sessions for slot in session.slots)
    running = [since for since in oldest if since is not None]
    return PoolView(
        key=pool.key,
        containers=containers,
        queued=pool.queue.runnable(),
        waiting_since=min((live.queued_at for live in pool.queue.heads()), default=None),
        running_since=min(running, default=None),
        empty_since=pool.empty_since,
        service_time=pool.service_time,
        cold_start=pool.cold_start,
        resources=pool.spec.resources,
        scaling=pool.scaling,
        max_inputs=pool.room * (pool.gathering.size if pool.gathering else 1),
        target_inputs=pool.spec.target_inputs,
        may_start=pool.may_start(now),
        weight=pool.queue.weight(),
    )


def _container(session: Session) -> ContainerView:
    if session.stopping:
        state = ContainerState.RETIRING
    elif session.ready:
        state = ContainerState.READY
    else:
        state = ContainerState.STARTING
    # A call that waits for a nested one has lent its slot: it asks for no container, but keeps this.
    calls, suspended = sum(len(slot.inflight) for slot in session.slots), 0
    if session.pool.waiting:
        inflight = (live for slot in session.slots for live in slot.inflight.values())
        suspended = sum(bool(live.waiting) for live in inflight)
    return ContainerView(
        session.id,
        state,
        session.started_at,
        calls - suspended,
        session.idle_since,
        session.node,
        suspended,
    )
