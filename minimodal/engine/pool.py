"""`Pool`: the containers of one function (or variant) and the queue before them.

The pool hands calls to slots and decides what an answer or a loss means for a call; when containers
start and stop is the planner's decision.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING, Any, NamedTuple

from minimodal.errors import CircuitOpen
from minimodal.policy import delay_before
from minimodal.types import CallState, ExitReason, Failure, FunctionSpec, Outcome, Payload, Scaling

from .autoscaler import smooth
from .breaker import Breaker, Breakers
from .calls import LiveCall, failed, label_of
from .gathering import Gathering
from .scheduler import FairQueue
from .session import Session
from .slot import Slot
from .tally import Tally

if TYPE_CHECKING:
    from minimodal.types import ImageRef

    from .engine import Engine
    from .lease import Lease

MAX_LOSSES = 3  # a call is retried so often after its container went away
MAX_START_FAILURES = 3  # in a row, before what waits is failed
PREFETCH_BELOW = 0.002  # seconds of service time under which calls are sent ahead
MAX_PREFETCH = 32


class Origin(NamedTuple):
    """How a variant was made of another pool's function, to be made again of its next version."""

    base: str
    changes: Mapping[str, Any]
    variant: str
    arguments: Payload


class Pool:
    """Owns its sessions and queue. Everything here runs on the engine's loop."""

    def __init__(self, engine: Engine, spec: FunctionSpec, app_name: str) -> None:
        self.engine = engine
        self.spec = spec
        self.key = spec.key  # the engine's name for it; a draining pool gets another
        self.draining = False  # a newer version has taken its place
        self.app_name = app_name
        self.name = spec.name
        self.label = label_of(spec, spec.key, app_name)
        self.scaling = _initial_scaling(spec)
        self.queue: FairQueue[LiveCall] = FairQueue(engine.tenants, spec.key)
        self.sessions: list[Session] = []
        self.service_time: float | None = None  # moving average, seconds
        self.cold_start: float | None = None
        self.empty_since: float | None = None  # calls wait and no container is live; see PoolView
        self.running = 0
        self.waiting = 0  # calls that run and wait for nested ones
        self.start_failures = 0  # in a row
        self.retry_start_at = 0.0  # loop time before which no container is started
        digest = spec.image.digest if spec.image else ""
        self.breaker = Breakers(engine.image_breakers.setdefault(digest, Breaker()))
        self.unfinished = 0  # calls that have no outcome yet
        self.origin: Origin | None = None  # of a variant
        self.tried: Callable[[Failure | None], None] | None = None  # told of the next start
        self.closed = False
        batching = spec.batching
        self.gathering = Gathering(batching, engine.loop, self.dispatch) if batching else None
        self.room = spec.max_inputs  # of one executor: inputs, or batches of them
        self.image: ImageRef | None = None
        # A web request may wait long for its client: nothing is sent ahead to wait behind it.
        web = spec.web is not None or bool(spec.web_methods)
        self._serial = self.room == 1 and not (batching or spec.single_use or web)
        self.lease: Lease | None = None  # of a slot that a caller's thread uses
        self.lease_after = 0.0  # loop time before which there is no other
        self.answered_at = -math.inf  # when the last call ended whose caller waits for it
        self._dispatching = False  # when the burst that is being read is over
        self.tally = Tally()

    def __repr__(self) -> str:
        return f"<Pool {self.spec.key} queued={len(self.queue)} running={self.running}>"

    # --- calls in ------------------------------------------------------------------------------------

    def submit(self, live: LiveCall) -> None:
        """Queue a new call. Raises CircuitOpen while containers keep failing to start."""
        self.require_working()
        self.queue.push(live, live.call.user, live.call.priority)
        self.dispatch()

    def enter(self, live: LiveCall) -> None:
        """Queue a new call that is on record: no quota and no open breaker refuses it now."""
        self.queue.push(live, live.call.user, live.call.priority, accepted=True)
        self.dispatch()

    def require_working(self) -> None:
        """Raises CircuitOpen."""
        if self.breaker.closed:
            return
        now = self.engine.loop.time()
        if self.breaker.fails_fast(now) and not self._any_ready():
            raise CircuitOpen(f"{self.name} is not started: {self.breaker.view(now)}")

    def _any_ready(self) -> bool:
        return any(session.ready and not session.stopping for session in self.sessions)

    def dispatch(self) -> None:
        """Give queued calls to free slots, at the end of the burst of frames that is being read."""
        if self._dispatching:
            return
        if self.engine.cork.depth:
            self._dispatching = True
            self.engine.cork.at_last(self._dispatch)
        else:
            self._dispatch()

    def _dispatch(self) -> None:
        """Give queued calls to free slots; ask the planner for containers if some remain."""
        self._dispatching = False
        if self.engine.draining:
            return
        queue, gathering = self.queue, self.gathering
        if queue:
            self.reclaim()
        open_slots: list[tuple[int, int, Slot]] | None = None
        depth = self._depth
        while queue:
            if gathering is not None and not gathering.is_due(queue):
                break
            if open_slots is None:
                open_slots = self._open_slots()
            if not open_slots:
                break
            live = self._next()
            if live is None:
                return  # who waits has used up a quota: the end of one of their calls wakes us
            _, order, slot = open_slots[0]
            if gathering is not None:
                self._start_batch(live, gathering, slot)
            elif live.durable and not live.cleared:
                self.engine.durable.begin(live, slot)
            else:
                self.give(live, slot)
            if self.spec.single_use:
                open_slots = None
            elif slot.load < depth:
                heapreplace(open_slots, (slot.load, order, slot))
            else:
                heappop(open_slots)
        if queue:
            if self.waiting:
                for session in self.sessions:
                    if session.ready and not session.stopping:
                        session.lend()
            self.engine.planner.wake()

    def give(self, live: LiveCall, slot: Slot) -> None:
        """Send a popped call to a slot, or queue it again if that has gone meanwhile."""
        if not self._takes(slot):
            self.left(live)
            self.queue_again(live)
            return
        slot.give(live)
        if self.spec.single_use:
            slot.session.retire()

    def _takes(self, slot: Slot) -> bool:
        """Whether a slot that was free when it was chosen still is."""
        stopping = slot.session.stopping and not self.spec.single_use
        return slot.ready and not stopping and not slot.stalled

    def give_batch(self, batch: list[LiveCall], slot: Slot) -> None:
        """As `give`, for calls that are one call of the user's function."""
        gone, given = not self._takes(slot), []
        for live in batch:
            if live.decided:
                self.left(live)
            elif gone:
                self.left(live)
                self.queue_again(live)
            else:
                given.append(live)
        if given:
            slot.give_batch(given)
            if self.spec.single_use:
                slot.session.retire()

    def _next(self) -> LiveCall | None:
        """The next call that may run, counted as running."""
        live = self.queue.pop()
        if live is not None:
            self.running += 1
        return live

    def _start_batch(self, first: LiveCall, gathering: Gathering, slot: Slot) -> None:
        batch = [first]
        while len(batch) < gathering.size and (live := self._next()) is not None:
            batch.append(live)
        gathering.taken()
        if any(live.durable and not live.cleared for live in batch):
            self.engine.durable.begin_batch(batch, slot)
        else:
            self.give_batch(batch, slot)

    def began(self, live: LiveCall) -> None:
        """A call runs that has not waited here: a caller's thread gave it to a slot."""
        self.queue.count_running(live.call.user)
        self.running += 1

    def may_lend(self, quick: float) -> bool:
        """Whether a slot may be lent to a caller's thread: its calls are quick and nobody waits."""
        engine = self.engine
        return (
            self._serial
            and self.lease is None
            and not self.queue
            and not self.running
            and (self.service_time or quick) < quick
            and engine.loop.time() >= self.lease_after
            and not (engine.draining or engine.tenants.limits_running or engine.is_deployed(self))
        )

    def reclaim(self) -> None:
        """No caller's thread uses a slot any more."""
        if self.lease is not None:
            self.lease.reclaim()

    def dispatch_later(self) -> None:
        self.engine.loop.call_soon(self.dispatch)

    def _open_slots(self) -> list[tuple[int, int, Slot]]:
        """A heap of the slots that take calls: the least loaded first, then the most recently used.

        Calls that take microseconds are sent ahead, so that the executor never waits for us.
        """
        room, depth = self.room, self._depth
        now = self.engine.clock.monotonic()
        found: list[tuple[int, int, Slot]] = []
        for session in reversed(self.sessions):
            if session.stopping or not session.ready:
                continue
            for slot in session.slots:
                load = slot.load
                if load < depth and slot.accepting and (load < room or slot.open_to_prefetch(now)):
                    found.append((load, len(found), slot))
        heapify(found)
        return found

    @property
    def _depth(self) -> int:
        """How many calls one slot may have at most, with those that are sent ahead."""
        if self.service_time is None or self.service_time > PREFETCH_BELOW or not self._serial:
            return self.room
        return min(MAX_PREFETCH, 1 + int(PREFETCH_BELOW / max(self.service_time, 1e-6)))

    # --- calls out -----------------------------------------------------------------------------------

    def answered(
        self,
        live: LiveCall,
        slot: Slot,
        payload: Payload,
        seconds: float,
        failure: Failure | None,
        why: CallState | None,
    ) -> None:
        """A slot answered. `why`: it was interrupted on purpose, so the answer does not count."""
        self.left(live)
        self.engine.logs.end_call(self.name, slot.session.id, live.call.id)
        now = self.engine.clock.monotonic()
        if not slot.load:
            slot.session.became_idle(self.engine.loop.time())
        if len(slot.session.slots) > 1:
            slot.session.take_back_lent()
        if why is None and failure is None:
            self.took(min(seconds, now - live.started_at))
            self.engine.finish(live, Outcome(CallState.OK, payload, None, live.attempts + 1))
        elif why is CallState.TIMEOUT:
            self._attempt_failed(live, CallState.TIMEOUT, self._timed_out())
        elif why is None and failure is not None:
            self._attempt_failed(live, CallState.ERROR, failure)
        self.dispatch()

    def took(self, seconds: float) -> None:
        """As the executor saw it: on a busy machine the way there and back takes longer."""
        self.service_time = smooth(self.service_time, seconds)

    def lost(self, live: LiveCall, reason: ExitReason, begun: bool, why: CallState | None) -> None:
        """The executor or container of a call went away."""
        self.left(live)
        if live.decided:
            return
        if why is CallState.TIMEOUT:
            self._attempt_failed(live, CallState.TIMEOUT, self._timed_out())
            return
        live.losses += begun
        restartable = live.stream is None or not live.stream.produced
        if live.losses > MAX_LOSSES or not restartable:
            kind = "OutOfMemory" if reason.oom else "CallLost"
            tried = f"; tried {live.losses} times" if live.losses > 1 else ""
            message = f"{self.name}: the process that ran it went away: {reason}{tried}"
            if reason.oom:
                message = f"{self.name} ran out of memory: {self._memory_limit()}{tried}"
            self.engine.finish(live, failed(CallState.LOST, kind, message, live.losses))
            return
        live.state = CallState.QUEUED
        if live.durable and begun:
            failure = Failure("CallLost", f"{self.name}: its process went away: {reason}")
            self.engine.durable.attempt_failed(live, failure, lost=True)
        else:
            self.queue.push_front(live, live.call.user, live.call.priority)
        self.engine.planner.wake()

    def _memory_limit(self) -> str:
        limit = self.spec.resources.memory_limit
        if limit is None:
            return "this machine has no more"
        return f"its container's limit is {limit} MiB (memory=(request, limit))"

    def given_back(self, live: LiveCall, why: CallState | None) -> None:
        """A call that was sent ahead comes back before it began."""
        self.left(live)
        if why is CallState.TIMEOUT or live.decided:
            return
        live.state = CallState.QUEUED
        self.queue.push_front(live, live.call.user, live.call.priority)
        self.dispatch_later()

    def left(self, live: LiveCall) -> None:
        self.running -= 1
        for queue in self.queue.finish(live.call.user):
            self.engine.dispatch_later(queue)

    def _timed_out(self) -> Failure:
        message = f"{self.name} ran longer than its timeout of {self.spec.timeout:g} s"
        return Failure("FunctionTimeoutError", message)

    def _attempt_failed(self, live: LiveCall, state: CallState, failure: Failure) -> None:
        live.attempts += 1
        policy = self.spec.retries
        retryable = live.stream is None and failure.type != "minimodal.errors.InputCancellation"
        if not live.decided and retryable and live.attempts <= policy.max_retries:
            delay = delay_before(policy, live.attempts, random.random())
            self.engine.traces.retried(live, failure)
            if live.durable:
                self.engine.durable.attempt_failed(live, failure, lost=False, delay=delay)
            else:
                self.retry_later(live, delay)
            return
        self.engine.finish(live, Outcome(state, None, failure, live.attempts))

    def retry_later(self, live: LiveCall, delay: float) -> None:
        live.state = CallState.QUEUED
        live.retry = self.engine.loop.call_later(delay, self.queue_again, live).cancel

    def queue_again(self, live: LiveCall) -> None:
        """Queue a call that was accepted once: no quota and no open breaker refuses it now."""
        live.retry = None
        self.queue.push_front(live, live.call.user, live.call.priority)
        if self.gathering is None:
            self.dispatch()
        else:
            self.dispatch_later()  # others come back at the same time: one batch

    def withdraw(self, live: LiveCall) -> None:
        """Take a call out of the queue, its retry or its slot: its outcome is decided."""
        if live.retry is not None:
            live.retry()
            live.retry = None
        elif live.slot is not None:
            live.slot.cancel(live)
        else:
            self.queue.discard(live)

    # --- sessions ------------------------------------------------------------------------------------

    def start_session(self, node: str) -> None:
        """Start one more container, building the image first where that is not done."""
        if self.image is None:
            self.engine.builds.build_for(self)
            return
        ticket = self.breaker.admit(self.engine.loop.time())
        if ticket is None:
            return
        session = Session(self, self.image, node)
        session.ticket = ticket
        self.sessions.append(session)
        self.engine.logs.begin(session.id, self.spec.app, self.app_name)
        self.engine.tasks.start_soon(session.run)

    def may_start(self, now: float) -> int | None:
        """How many containers may be starting at once; None: any number."""
        return 0 if self.retry_start_at > now else self.breaker.allowance(now)

    def next_start(self, now: float) -> float:
        """Seconds until a container may be started, where only time has to pass."""
        return max(self.retry_start_at - now, self.breaker.view(now).retry_in)

    def session_ready(self, session: Session, seconds: float) -> None:
        self.start_failures = 0
        self._say_tried(None)
        self.breaker.success(session.ticket)
        self.tally.cold_starts.add(seconds)
        self.cold_start = smooth(self.cold_start, seconds)

    def session_ended(self, session: Session, reason: ExitReason) -> None:
        if session in self.sessions:
            self.sessions.remove(session)
        self.breaker.withdraw(session.ticket)  # if neither success nor failure has used it
        self.engine.logs.end(self.name, session.id)
        self.engine.planner.wake()

    def start_failed(self, session: Session, failure: Failure, again: bool) -> None:
        """A container did not become ready: tried again a few times, then what waits fails.

        What cannot get better by itself (an import that raises) fails at once.
        """
        now = self.engine.loop.time()
        self._say_tried(failure)
        self.start_failures += 1
        reason = f"{failure.type}: {failure.message}"
        self.breaker.failure(session.ticket, now, reason, of_image=session.mute)
        self.retry_start_at = now + 0.1 * 2 ** min(self.start_failures, 8)
        again = again and self.start_failures < MAX_START_FAILURES
        if self._any_ready() or (again and not self.breaker.fails_fast(now)):
            return
        self.start_failures = 0
        self.fail_all(Outcome(CallState.ERROR, None, failure))

    def _say_tried(self, failure: Failure | None) -> None:
        tried, self.tried = self.tried, None
        if tried is not None:
            tried(failure)

    def drain(self) -> None:
        """A newer version takes the new calls; this one finishes those that it has."""
        self.reclaim()
        self.draining = True
        self.scaling = self.scaling._replace(
            min_containers=0, buffer_containers=0, scaledown_window=1.0
        )

    def reopened(self) -> None:
        """The same function was sent again: what stood in its way may be mended."""
        self.scaling = _initial_scaling(self.spec)
        self.breaker.reset()
        self.start_failures, self.retry_start_at = 0, 0.0

    def fail_all(self, outcome: Outcome) -> None:
        for live in list(self.queue):
            self.queue.discard(live)
            self.engine.finish(live, outcome)

    def close(self) -> None:
        """The app is closed: no call runs here any more, and the containers end."""
        self.closed = True
        for session in self.sessions:
            session.request_stop()


def _initial_scaling(spec: FunctionSpec) -> Scaling:
    """A class whose arguments are missing starts nothing by itself; its variants do."""
    if spec.shape is not None and spec.shape.needs_arguments and spec.parameters is None:
        return spec.scaling._replace(min_containers=0, buffer_containers=0)
    return spec.scaling
