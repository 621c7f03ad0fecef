"""How many containers one pool should have: a pure function of what the pool looks like now.

Owns the records that describe pools to the planner, and when a pool grows and shrinks. How the pools
share the nodes' cpu and memory is placement.py's. All times are seconds on one monotonic clock.

The rule, for calls that wait or run above the target concurrency:
- what the present containers will finish within one cold start doesn't justify a new container;
- the rest gets as many as finish it in the longer of one service time and one cold start (Little's
  law): calls of 5 s get a container each, a thousand calls of 10 ms get a few;
- a call that has waited longer than a cold start, while nothing new came up, shows that the
  estimate was wrong: grow anyway, in small steps;
- while service time or cold start are unknown the pool grows in steps, each proved by the last
  (as TCP's slow start), so that code which dies at start costs a few starts and not a hundred, and
  a burst of calls that turn out to be short doesn't fill the host.

It shrinks only by age: a container idle for the scaledown window goes, the longest idle first. What
grows by load and shrinks by age can't flap.
"""

from __future__ import annotations

from enum import Enum
from math import ceil
from typing import NamedTuple

from minimodal.types import Resources, Scaling

UNPROVED_STARTS = 2
"""Containers started at once while none of the pool has ever come up."""

GROWTH = 4
"""How many new containers each ready one justifies while the service time is unknown but no longer
short: a call has run for a quarter of a cold start. Until then it is one."""

SMOOTHING = 0.2
"""Weight of the newest sample in the means of service times and cold starts."""

DEFAULT_COLD_START = 0.5
"""Seconds; what a cold start is taken to last before one was measured."""


class ContainerState(Enum):
    STARTING = "starting"  # not yet ready for calls
    READY = "ready"  # takes calls
    RETIRING = (
        "retiring"  # takes no new calls and goes when its last is done; holds its room till then
    )


class ContainerView(NamedTuple):
    """One container as the planner sees it, from the decision to start it until it is gone.

    `suspended` calls wait for calls of their own: they ask for no slot, and still keep it busy.
    """

    id: str
    state: ContainerState
    started: float  # when its start began
    inputs: int = 0  # calls it runs now
    idle_since: float = 0.0  # meaningful only when READY and not busy
    node: str = ""  # Node.name
    suspended: int = 0

    @property
    def busy(self) -> bool:
        return self.inputs > 0 or self.suspended > 0


class PoolView(NamedTuple):
    """One pool as the planner sees it.

    `queued`: waiting calls that the users' quotas would let run (`FairQueue.runnable`).
    `waiting_since`: when the oldest of them was queued. `running_since`: when the oldest running call
    began. `empty_since`: since when calls wait and no container is live; left out, `waiting_since` must
    do, and turns are less even. `service_time`, `cold_start`: see `smooth`; None until measured.
    `may_start`: how many containers may be starting at once (the breaker's `allowance`, 0 while the
    image is built); None: any number. `weight`: against other pools.
    """

    key: str
    containers: tuple[ContainerView, ...] = ()
    queued: int = 0
    waiting_since: float | None = None
    running_since: float | None = None
    empty_since: float | None = None
    service_time: float | None = None
    cold_start: float | None = None
    resources: Resources = Resources()
    scaling: Scaling = Scaling()
    max_inputs: int = 1
    target_inputs: int | None = None
    may_start: int | None = None
    weight: float = 1.0


def wanted_now(view: PoolView, now: float) -> int:
    """How many containers the calls that run and wait need, at most `max_containers`."""
    containers = live(view)
    running = sum(each.inputs for each in containers)
    ready = sum(each.state is ContainerState.READY for each in containers)
    target = view.target_inputs or view.max_inputs
    pressure = running + view.queued - ready * target
    if pressure <= 0:
        return clamp(view, ceil((running + view.queued) / target))
    one_each = ready + ceil(pressure / target)
    unproved = view.service_time is None or view.cold_start is None
    if unproved:
        step = (
            UNPROVED_STARTS if not ready else ready if now < seems_long_at(view) else GROWTH * ready
        )
        return clamp(view, min(one_each, ready + step))
    by_estimate = ready + ceil(_worth_starting(view, pressure, ready * target) / target)
    if view.queued and now >= overdue_at(view):
        by_estimate = max(by_estimate, ready + max(1, ready // 2))
    return clamp(view, min(one_each, max(1, by_estimate)))


def wanted_warm(view: PoolView, now: float) -> int:
    """`wanted_now`, and what `min_containers` and, in an active pool, `buffer_containers` add."""
    wanted = wanted_now(view, now)
    if wanted:
        wanted += view.scaling.buffer_containers
    return clamp(view, max(wanted, view.scaling.min_containers))


def expired_idle(view: PoolView, now: float) -> list[ContainerView]:
    """Containers to stop now for their age, longest idle first: the newest stay warm."""
    idle = sorted(idle_containers(view), key=lambda each: each.idle_since)
    surplus = len(live(view)) - wanted_warm(view, now)
    return [each for each in idle if _expired(view, each, now)][: max(0, surplus)]


def smooth(previous: float | None, sample: float) -> float:
    """The next value of an exponentially weighted mean: service times and cold starts, seconds."""
    return sample if previous is None else previous + SMOOTHING * (sample - previous)


def live(view: PoolView) -> list[ContainerView]:
    return [each for each in view.containers if each.state is not ContainerState.RETIRING]


def idle_containers(view: PoolView) -> list[ContainerView]:
    ready = ContainerState.READY
    return [each for each in view.containers if each.state is ready and not each.busy]


def clamp(view: PoolView, count: int) -> int:
    most = view.scaling.max_containers
    return count if most is None else min(count, most)


def cold_start(view: PoolView) -> float:
    return DEFAULT_COLD_START if view.cold_start is None else view.cold_start


def grows_at(view: PoolView) -> tuple[float, ...]:
    """When time alone may make `wanted_now` larger."""
    return (overdue_at(view), seems_long_at(view)) if view.queued else ()


def overdue_at(view: PoolView) -> float:
    """When the oldest waiting call has waited a cold start, and as long since the newest came up."""
    if view.waiting_since is None:
        return float("inf")
    start = cold_start(view)
    newest = max((each.started for each in view.containers), default=0.0)
    return max(view.waiting_since + start, newest + 2 * start)


def seems_long_at(view: PoolView) -> float:
    """When calls of unknown service time are taken to be worth many containers."""
    return (view.running_since or 0.0) + cold_start(view) / 4


def _worth_starting(view: PoolView, pressure: int, slots: int) -> float:
    """For how many calls at once new containers are worth their start, of `pressure` surplus calls."""
    service = max(view.service_time or 0.0, 1e-6)
    start = cold_start(view)
    left = max(0.0, pressure - slots * start / service)
    return left * service / max(service, start)


def _expired(view: PoolView, each: ContainerView, now: float) -> bool:
    if each.state is not ContainerState.READY or each.busy:
        return False
    return now >= each.idle_since + view.scaling.scaledown_window
