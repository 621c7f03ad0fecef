"""The things of the simulation: a pool's nature, its calls, its containers, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field

from minimodal.engine.autoscaler import ContainerState, ContainerView, PoolView
from minimodal.engine.breaker import Breaker
from minimodal.engine.scheduler import FairQueue, Tenants
from minimodal.types import Resources, RetryPolicy, Scaling, ScheduleSpec

MAX_LOSSES = 3
STOP_TIME = 0.1  # seconds that a container takes to go


@dataclass
class Setup:
    """One pool's nature. Probabilities are per call or start; times in seconds."""

    service: float = 1.0
    cold_start: float = 0.3
    resources: Resources = field(default_factory=Resources)
    scaling: Scaling = field(default_factory=Scaling)
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    max_inputs: int = 1
    raises: float = 0.0
    kills: float = 0.0  # the call takes its container along
    broken_until: float = 0.0  # every start fails before
    schedule: ScheduleSpec | None = None


@dataclass(eq=False)
class Call:
    number: int
    pool: Pool
    user: str
    priority: int
    submitted: float
    started: float | None = None
    container: Container | None = None
    retry_waits: bool = False
    retries: int = 0
    losses: int = 0
    attempts: int = 0
    outcome: str = ""


@dataclass(eq=False)
class Container:
    id: str
    pool: Pool
    node: str
    started: float
    ticket: int
    state: ContainerState = ContainerState.STARTING
    idle_since: float = 0.0
    calls: list[Call] = field(default_factory=list)
    ending: bool = False

    def view(self) -> ContainerView:
        return ContainerView(
            self.id, self.state, self.started, len(self.calls), self.idle_since, self.node
        )


class Pool:
    def __init__(self, key: str, setup: Setup, tenants: Tenants) -> None:
        self.key = key
        self.setup = setup
        self.queue: FairQueue[Call] = FairQueue(tenants, key)
        self.containers: dict[str, Container] = {}
        self.breaker = Breaker()
        self.service_time: float | None = None
        self.cold_start: float | None = None
        self.empty_since: float | None = None
        self.last_tick = 0.0
        self.ticks: list[float] = []

    def view(self, now: float) -> PoolView:
        containers = tuple(each.view() for each in self.containers.values())
        live = any(each.state is not ContainerState.RETIRING for each in containers)
        if live or not self.queue:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = now
        started = (call.started for each in self.containers.values() for call in each.calls)
        return PoolView(
            self.key,
            containers,
            queued=self.queue.runnable(),
            waiting_since=min((call.submitted for call in self.queue.heads()), default=None),
            running_since=min((moment for moment in started if moment is not None), default=None),
            empty_since=self.empty_since,
            service_time=self.service_time,
            cold_start=self.cold_start,
            resources=self.setup.resources,
            scaling=self.setup.scaling,
            max_inputs=self.setup.max_inputs,
            may_start=self.breaker.allowance(now),
            weight=self.queue.weight() or 1.0,
        )
