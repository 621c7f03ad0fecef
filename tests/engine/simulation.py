"""A whole engine of pure decisions on a virtual clock: scheduler, autoscaler, breaker, retries, cron.

The driver does what the real engine does, with events in place of containers and time, and checks
after every event that no call is lost or ends twice, no quota or budget is exceeded, and whatever
isn't finished has an event to come. Everything follows from the seed: same seed, same trace.
"""

from __future__ import annotations

from collections import Counter
from heapq import heappop, heappush
from random import Random

from minimodal.engine.autoscaler import ContainerState, smooth
from minimodal.engine.cron import Missed, due
from minimodal.engine.placement import Node, plan
from minimodal.engine.scheduler import Quota, Tenants
from minimodal.errors import ResourceExhaustedError
from minimodal.policy import delay_before

from .simulated_pool import MAX_LOSSES, STOP_TIME, Call, Container, Pool, Setup


class Simulation:
    def __init__(
        self, setups: dict[str, Setup], quotas: dict[str, Quota], nodes: list[Node], seed: int = 0
    ) -> None:
        self.random = Random(seed)
        self.tenants = Tenants()
        for user, quota in quotas.items():
            self.tenants.set_quota(user, quota)
        self.pools = {key: Pool(key, setup, self.tenants) for key, setup in setups.items()}
        self.nodes = nodes
        self.now = 0.0
        self.wall = 0.0  # wall clock minus virtual clock
        self.calls: list[Call] = []
        self.live: dict[int, Call] = {}
        self.refused = 0
        self.starts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.events: list[tuple[float, int, str, object]] = []
        self.sequence = 0
        self.wakes_at: float | None = None
        self.plans = 0
        for pool in self.pools.values():
            if pool.setup.schedule:
                self.at(0.0, "cron", pool)

    def at(self, moment: float, kind: str, what: object = None) -> None:
        self.sequence += 1
        heappush(self.events, (moment, self.sequence, kind, what))

    def run(self, until: float) -> None:
        """Until nothing is left to do, or that moment."""
        while self.events and self.events[0][0] <= until:
            moment, _, kind, what = heappop(self.events)
            if kind == "wake" and what != self.wakes_at:
                continue  # a later plan said otherwise
            assert moment >= self.now
            self.now = moment
            getattr(self, f"on_{kind}")(what)
            for pool in self.pools.values():
                self.dispatch(pool)
            self.replan()
            self.check()
        self.now = max(self.now, until)

    def say(self, text: str) -> None:
        self.trace.append(f"{self.now:.6f} {text}")

    def on_submit(self, what: object) -> None:
        assert isinstance(what, tuple)
        key, user, priority = what
        pool = self.pools[key]
        if pool.breaker.fails_fast(self.now):
            self.refused += 1
            return
        call = Call(len(self.calls), pool, user, priority, self.now)
        try:
            pool.queue.push(call, user, priority)
        except ResourceExhaustedError:
            assert self.tenants.queued(user) >= (self.tenants.quota(user).max_queued or 1e9)
            self.refused += 1
            return
        self.calls.append(call)
        self.live[call.number] = call
        self.say(f"submit {call.number} {key} {user}")

    def on_cron(self, pool: object) -> None:
        assert isinstance(pool, Pool)
        assert pool.setup.schedule
        wall = self.now + self.wall
        result = due(pool.setup.schedule, pool.last_tick, wall, Missed.CATCH_UP, anchor=0.0)
        pool.last_tick = result.last
        if result.tick is not None:
            assert result.tick not in pool.ticks, "a tick ran twice"
            pool.ticks.append(result.tick)
            self.on_submit((pool.key, "cron", 0))
        if self.now < 60.0:
            self.at(self.now + min(max(result.next - wall, 0.01), 5.0), "cron", pool)

    def on_jump(self, seconds: object) -> None:
        assert isinstance(seconds, float)
        self.wall += seconds
        self.say(f"jump {seconds}")

    def on_ready(self, container: object) -> None:
        assert isinstance(container, Container)
        pool = container.pool
        if container.id not in pool.containers or container.state is not ContainerState.STARTING:
            return  # given up meanwhile
        if self.now < pool.setup.broken_until:
            pool.breaker.failure(container.ticket, self.now, "it exited with code 1")
            self.say(f"failed {container.id}")
            self.remove(container)
            if pool.breaker.fails_fast(self.now):
                for call in list(pool.queue):
                    pool.queue.discard(call)
                    self.end(call, "circuit open")
            self.at(self.now + pool.breaker.view(self.now).retry_in, "look")
            return
        pool.breaker.success(container.ticket)
        pool.cold_start = smooth(pool.cold_start, self.now - container.started)
        container.state = ContainerState.READY
        container.idle_since = self.now
        self.say(f"ready {container.id}")

    def on_finish(self, what: object) -> None:
        assert isinstance(what, tuple)
        call, attempt = what
        if call.container is None or call.attempts != attempt:
            return  # late: cancelled, or its container died before
        setup, container = call.pool.setup, call.container
        if self.random.random() < setup.kills:
            self.on_die(container)
            return
        call.pool.service_time = smooth(call.pool.service_time, self.now - call.started)
        self.leave(call)
        if self.random.random() >= setup.raises:
            self.end(call, "ok")
        elif call.retries < setup.retries.max_retries:
            call.retries += 1
            call.retry_waits = True
            delay = delay_before(setup.retries, call.retries, self.random.random())
            self.at(self.now + delay, "retry", call)
        else:
            self.end(call, "error")

    def on_retry(self, call: object) -> None:
        assert isinstance(call, Call)
        if call.retry_waits:
            call.retry_waits = False
            call.pool.queue.push_front(call, call.user, call.priority)

    def on_kill(self, _: object) -> None:
        """Some container dies."""
        containers = [each for pool in self.pools.values() for each in pool.containers.values()]
        if containers:
            self.on_die(self.random.choice(containers))

    def on_die(self, container: Container) -> None:
        self.say(f"died {container.id}")
        self.remove(container)
        for call in list(container.calls):
            self.leave(call)
            call.losses += 1
            if call.losses > MAX_LOSSES:
                self.end(call, "lost")
            else:
                call.pool.queue.push_front(call, call.user, call.priority)

    def on_cancel(self, _: object) -> None:
        """Some call is cancelled, in whatever state it is."""
        if not self.live:
            return
        call = self.random.choice(list(self.live.values()))
        queued = call.pool.queue.discard(call)
        assert queued + (call.container is not None) + call.retry_waits == 1
        call.retry_waits = False
        if call.container:
            self.leave(call)
        self.end(call, "cancelled")

    def on_gone(self, container: Container) -> None:
        self.remove(container)

    def on_wake(self, _: object) -> None:
        """The plan asked to be made again."""

    on_look = on_wake

    def dispatch(self, pool: Pool) -> None:
        while pool.queue:
            ready = [
                each for each in pool.containers.values() if each.state is ContainerState.READY
            ]
            free = [each for each in ready if len(each.calls) < pool.setup.max_inputs]
            if not free:
                return
            call = pool.queue.pop()
            if call is None:
                return
            container = max(free, key=lambda each: (-len(each.calls), each.idle_since))
            call.container = container
            call.started = self.now
            call.attempts += 1
            container.calls.append(call)
            self.say(f"start {call.number} on {container.id}")
            took = pool.setup.service * self.random.uniform(0.9, 1.1)
            self.at(self.now + took, "finish", (call, call.attempts))

    def replan(self) -> None:
        views = [pool.view(self.now) for pool in self.pools.values()]
        decided = plan(views, self.nodes, self.now)
        known = {key: each for pool in self.pools.values() for key, each in pool.containers.items()}
        for name in decided.stop:
            assert not known[name].calls, "a busy container was stopped"
            self.stop(known[name])
        for name in decided.retire:
            known[name].state = ContainerState.RETIRING
            self.say(f"retire {name}")
        for start in decided.start:
            self.start(self.pools[start.pool], start.node)
        self.plans += 1
        at = decided.wake_at
        assert at is None or at > self.now
        if at is not None and at != self.wakes_at:
            self.at(at, "wake", at)
        self.wakes_at = at

    def start(self, pool: Pool, node: str) -> None:
        ticket = pool.breaker.admit(self.now)
        if ticket is None:
            return
        self.starts[pool.key] += 1
        container = Container(f"{pool.key}{self.starts[pool.key]}", pool, node, self.now, ticket)
        pool.containers[container.id] = container
        self.say(f"launch {container.id}")
        self.at(
            self.now + pool.setup.cold_start * self.random.uniform(0.8, 1.2), "ready", container
        )

    def stop(self, container: Container) -> None:
        if not container.ending:
            container.ending = True
            container.state = ContainerState.RETIRING
            container.pool.breaker.withdraw(container.ticket)
            self.say(f"stop {container.id}")
            self.at(self.now + STOP_TIME, "gone", container)

    def remove(self, container: Container) -> None:
        container.pool.containers.pop(container.id, None)
        container.pool.breaker.withdraw(container.ticket)

    def leave(self, call: Call) -> None:
        container = call.container
        assert container
        call.container = None
        container.calls.remove(call)
        container.idle_since = self.now
        call.pool.queue.finish(call.user)
        if container.state is ContainerState.RETIRING and not container.calls:
            self.stop(container)

    def end(self, call: Call, outcome: str) -> None:
        assert not call.outcome, "a call ended twice"
        call.outcome = outcome
        del self.live[call.number]
        self.say(f"end {call.number} {outcome}")

    def check(self) -> None:
        running: Counter[str] = Counter()
        used = {node.name: [node.cpu + 1e-6, float(node.memory)] for node in self.nodes}
        for pool in self.pools.values():
            setup = pool.setup
            most = setup.scaling.max_containers
            assert most is None or len(pool.containers) <= most
            for container in pool.containers.values():
                used[container.node][0] -= setup.resources.cpu
                used[container.node][1] -= setup.resources.memory
                running.update(call.user for call in container.calls)
                assert len(container.calls) <= setup.max_inputs
                assert all(call.container is container for call in container.calls)
        assert min(map(min, used.values())) >= 0, "a node's budget is exceeded"
        for user, count in running.items():
            limit = self.tenants.quota(user).max_running
            assert limit is None or count <= limit, "a quota is exceeded"
        queued: Counter[str] = Counter()
        for call in self.live.values():
            waits = call in call.pool.queue
            queued[call.user] += waits
            places = waits + (call.container is not None) + call.retry_waits
            assert places == 1, "a call is lost, or in two places"
            assert call.attempts <= 1 + call.pool.setup.retries.max_retries + MAX_LOSSES
        for user in self.tenants.users():
            assert self.tenants.queued(user) == queued[user]
            assert self.tenants.running(user) == running[user]
        assert not self.live or self.events, "nothing is left that could end the calls"
