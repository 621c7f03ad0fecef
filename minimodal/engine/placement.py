"""Which containers to start and stop, over all pools, within the nodes' cpu and memory.

Owns `plan`: the one decision about room. A pure function of the pools' views, the nodes and the time;
whoever calls it carries the plan out, shows the containers as they then are in the next views, and
calls again at every change and at `Plan.wake_at`.

Room is shared by dominant resource fairness (Ghodsi et al., NSDI 2011): the pool with the least
share of its scarcest resource, over its weight, goes next. Where there is no room it is made, in this
order: idle containers above `min_containers`, containers still starting that nobody needs any more,
idle ones below it (only for a pool that has none at all), and at last a busy container of a pool
that has more than its share is retired: it finishes what it runs and takes nothing new. So a busy
container is never killed, and a pool that always has work can't keep the others out for ever.
Weights decide how many containers a pool gets beyond its first; where there are more pools than
containers, they take turns.

Room that is being freed is promised to the pool it was freed for. Starts use only room that is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain
from math import ceil
from typing import NamedTuple

from . import autoscaler
from .autoscaler import ContainerState, ContainerView, PoolView
from .nodes import Node, Room, never_fits

__all__ = ["Node", "Plan", "Start", "never_fits", "plan"]

LONGEST_GRACE = 2.0
"""Seconds. An idle container gives way at once to a pool that has waited this long, or as long as
the container's own cold start takes; until then only if it has been idle that long, so that a loop of
short calls doesn't lose its container between two of them."""

TURN = 1.0
"""Seconds. Where not every pool can have a container, one keeps it this long, or ten cold starts. A
pool that would have more than its share with one waits as many turns as it would have too much."""


class Start(NamedTuple):
    pool: str
    node: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now.

    `stop`: ids of containers that run no call: end them. `retire`: ids of busy ones: no new calls, end
    when idle. `waiting`: pools that need a container and get none now, with the reason for people.
    `wake_at`: when time alone may change the plan; None: never.
    """

    start: tuple[Start, ...] = ()
    stop: tuple[str, ...] = ()
    retire: tuple[str, ...] = ()
    waiting: Mapping[str, str] = field(default_factory=dict)
    wake_at: float | None = None


def plan(pools: Sequence[PoolView], nodes: Sequence[Node], now: float) -> Plan:
    """Decide for all pools at once. O(containers + starts * log pools), more where room is made."""
    planner = _Planner(pools, nodes, now)
    planner.scale_down()
    planner.meet_demand()
    planner.keep_warm()
    return planner.result()


class _Pool:
    """A pool while planning: what it has, wants, and may still give."""

    def __init__(self, view: PoolView, unit: float, now: float) -> None:
        self.view = view
        self.unit = unit / (view.weight or 1.0)  # dominant share of one container
        self.live = autoscaler.live(view)
        self.count = len(self.live)  # live and promised
        self.wanted = autoscaler.wanted_now(view, now)
        self.warm = autoscaler.wanted_warm(view, now)
        starting = sum(each.state is ContainerState.STARTING for each in view.containers)
        self.startable = 1 << 30 if view.may_start is None else view.may_start - starting
        if view.scaling.max_containers is not None:  # retiring ones count: at most so many at once
            self.startable = min(self.startable, view.scaling.max_containers - len(view.containers))
        self.least = view.scaling.min_containers
        self.waited = now - view.waiting_since if view.waiting_since is not None else 0.0
        starved = self.waited if view.empty_since is None else now - view.empty_since
        self.starved = 0.0 if self.live else starved
        self.grace = min(autoscaler.cold_start(view), LONGEST_GRACE)
        self.turn = max(TURN, 10 * autoscaler.cold_start(view))

    def share(self, more: int = 0) -> float:
        return (self.count + more) * self.unit

    def wants(self, target: int) -> bool:
        return self.count < target and self.startable > 0


class _Planner:
    def __init__(self, pools: Sequence[PoolView], nodes: Sequence[Node], now: float) -> None:
        self.now = now
        self.rooms = {node.name: Room(node) for node in nodes}
        cpu = sum(node.cpu for node in nodes) or 1.0
        memory = sum(node.memory for node in nodes) or 1
        self.pools = [
            _Pool(view, max(view.resources.cpu / cpu, view.resources.memory / memory, 1e-12), now)
            for view in pools
        ]
        self.start: list[Start] = []
        self.stop: dict[str, None] = {}
        self.retire: dict[str, None] = {}
        self.waiting: dict[str, str] = {}
        self.wake_at: float | None = None
        self.top_share = float("inf")  # no pool has more; spares the search when all are even
        live = [(pool, each) for pool in self.pools for each in pool.live]
        self.starting = [pair for pair in live if pair[1].state is ContainerState.STARTING]
        self.starting.sort(key=lambda pair: -pair[1].started)
        self.ready = [pair for pair in live if pair[1].state is ContainerState.READY]
        self.ready.sort(key=lambda pair: (pair[1].busy, pair[1].inputs, pair[1].started))
        self.idle = [pair for pair in self.ready if not pair[1].busy]
        self.idle.sort(key=lambda pair: pair[1].idle_since)
        for pool in self.pools:
            for each in pool.view.containers:
                if each.node in self.rooms:  # else its node has left
                    self.rooms[each.node].use(pool.view.resources)
                    if each.state is ContainerState.RETIRING:
                        self.rooms[each.node].release_later(pool.view.resources)

    def result(self) -> Plan:
        ends = tuple(self.stop), tuple(self.retire)
        return Plan(tuple(self.start), *ends, self.waiting, self.wake_at)

    def scale_down(self) -> None:
        """Stop what has been idle for too long, and what a lowered `max_containers` forbids."""
        for pool in self.pools:
            view = pool.view
            for each in autoscaler.expired_idle(view, self.now):
                self._end(pool, each)
            most = view.scaling.max_containers
            if most is not None and pool.count > most:
                for each in sorted(pool.live, key=lambda e: (e.busy, e.inputs, e.idle_since)):
                    if pool.count > most and each.id not in self.stop:
                        self._end(pool, each)
            if pool.count > pool.warm:
                for each in autoscaler.idle_containers(view):
                    expires = each.idle_since + view.scaling.scaledown_window
                    if expires > self.now:
                        self._wake(expires)

    def meet_demand(self) -> None:
        """Containers for calls, to the pool with the least share first, one by one."""
        heap: list[tuple[float, float, int]] = []
        for index, pool in enumerate(self.pools):
            if pool.wants(pool.wanted):
                heap.append((pool.share(), -pool.starved, index))
            for moment in autoscaler.grows_at(pool.view):
                if self.now < moment < float("inf"):
                    self._wake(moment)
        heapify(heap)
        while heap:
            *_, index = heappop(heap)
            pool = self.pools[index]
            if not (self._place(pool) or self._place_later(pool) or self._make_room(pool)):
                self.waiting[pool.view.key] = (
                    never_fits(pool.view.resources, [room.node for room in self.rooms.values()])
                    or "the nodes' cpu and memory are in use by others with the same right to them"
                )
            elif pool.wants(pool.wanted):
                heappush(heap, (pool.share(), -pool.starved, index))

    def keep_warm(self) -> None:
        """Containers ahead of need, where there is room that nobody waits for."""
        for pool in sorted(self.pools, key=lambda pool: pool.share()):
            while pool.wants(pool.warm) and self._place(pool):
                pass

    def _place(self, pool: _Pool) -> bool:
        """Start one now, on the node that it fills best."""
        need = pool.view.resources
        rooms = [room for room in self.rooms.values() if room.fits(need) and room.fits_later(need)]
        if not rooms:
            return False
        room = min(rooms, key=lambda room: (room.memory, room.cpu))
        room.use(need)
        self._count(pool)
        self.start.append(Start(pool.view.key, room.node.name))
        return True

    def _place_later(self, pool: _Pool) -> bool:
        """Promise it room that is being freed."""
        need = pool.view.resources
        for room in self.rooms.values():
            if room.fits_later(need):
                room.promise(need)
                self._count(pool)
                self.waiting[pool.view.key] = "room is being made for it"
                return True
        return False

    def _count(self, pool: _Pool) -> None:
        pool.count += 1
        pool.startable -= 1
        self.top_share = max(self.top_share, pool.share())

    def _make_room(self, pool: _Pool) -> bool:
        """End others' containers on the node where the fewest must go, and promise that room."""
        best: list[tuple[_Pool, ContainerView]] | None = None
        for room in self.rooms.values():
            victims = self._victims(pool, room)
            if victims is not None and (best is None or len(victims) < len(best)):
                best = victims
        if best is None:
            return False
        for owner, each in best:
            self._end(owner, each)
        return self._place_later(pool)

    def _victims(self, pool: _Pool, room: Room) -> list[tuple[_Pool, ContainerView]] | None:
        """Whom to end on this node so that one more of the pool fits; None: not even all."""
        need = pool.view.resources
        trial = Room(room.node)
        if not trial.fits(need):
            return None
        trial.later_cpu, trial.later_memory = room.later_cpu, room.later_memory
        victims: list[tuple[_Pool, ContainerView]] = []
        chosen: set[str] = set()
        taken: dict[str, int] = {}
        for owner, each, least in self._candidates(pool, room.node.name):
            given = taken.get(owner.view.key, 0)
            if owner.count - given <= least or each.id in chosen:
                continue
            victims.append((owner, each))
            chosen.add(each.id)
            taken[owner.view.key] = given + 1
            trial.release_later(owner.view.resources)
            if trial.fits_later(need):
                return victims
        return None

    def _candidates(self, pool: _Pool, node: str) -> Iterator[tuple[_Pool, ContainerView, int]]:
        """(owner, container, how many the owner keeps at least), the least harmful first."""
        unused = [pair for pair in self.idle if self._gives_way(*pair, pool)] + self.starting
        tiers: list[Iterable[tuple[_Pool, ContainerView, int]]] = [
            ((owner, each, max(owner.wanted, owner.least)) for owner, each in unused)
        ]
        if not pool.live and not pool.count:  # not one that gives up its last in this very plan
            tiers.append((owner, each, owner.wanted) for owner, each in unused)
        tiers.append(self._above_its_share(pool.share(more=1)))
        if not pool.live and not pool.count:
            over = sorted(self.ready, key=lambda pair: -pair[0].share())
            turns = (pair for pair in over if self._turn_is_over(*pair, pool))
            tiers.append((owner, each, 0) for owner, each in turns)
        for owner, each, least in chain.from_iterable(tiers):
            ending = each.id in self.stop or each.id in self.retire
            if owner is not pool and each.node == node and not ending:
                yield owner, each, least

    def _above_its_share(self, share: float) -> Iterator[tuple[_Pool, ContainerView, int]]:
        """Containers of pools that keep at least this share without them, the largest share first."""
        if self.top_share <= share:
            return
        owners = [owner for owner in self.pools if owner.share() > share]
        self.top_share = max((owner.share() for owner in owners), default=share)
        for owner in sorted(owners, key=lambda owner: -owner.share()):
            least = ceil(share / owner.unit - 1e-6)
            if owner.count > least:
                for each in sorted(owner.live, key=lambda e: (e.busy, e.inputs, e.started)):
                    yield owner, each, least

    def _gives_way(self, owner: _Pool, each: ContainerView, pool: _Pool) -> bool:
        waits_since = self.now - pool.waited
        return self._reached(min(each.idle_since, waits_since) + owner.grace)

    def _turn_is_over(self, owner: _Pool, each: ContainerView, pool: _Pool) -> bool:
        excess = pool.share(more=1) / max(owner.share(), owner.unit)
        due = each.started + owner.turn
        if excess > 1 + 1e-6:
            due = max(due, self.now - pool.starved + owner.turn * excess)
        return self._reached(due)

    def _reached(self, moment: float) -> bool:
        """Whether it has come; if not, plan again when it does."""
        if self.now >= moment:
            return True
        self._wake(moment)
        return False

    def _wake(self, moment: float) -> None:
        moment = max(moment, self.now + 0.001)  # rounding must not make the caller spin
        if self.wake_at is None or moment < self.wake_at:
            self.wake_at = moment

    def _end(self, owner: _Pool, each: ContainerView) -> None:
        (self.retire if each.busy else self.stop)[each.id] = None
        owner.count -= 1
        if each.node in self.rooms:
            self.rooms[each.node].release_later(owner.view.resources)
