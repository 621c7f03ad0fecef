"""`Engine`: everything between a Client and a Backend, on one loop.

Owns the registry of functions, the table of live calls and the services' task group. It sees specs
and Protocols: never an App, never a concrete backend, and it never unpickles anything.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.clock import Clock
from minimodal.errors import (
    Error,
    NotFoundError,
    ResourceExhaustedError,
    name_of,
)
from minimodal.protocols import Backend, Done
from minimodal.types import (
    EMPTY,
    Call,
    CallState,
    FunctionSpec,
    Outcome,
)

from .breaker import Breaker
from .builds import Builds
from .call_ops import CallOps
from .calls import Ended, LiveCall, ended, failed
from .durable import Durable
from .events import EventLog
from .function_ops import FunctionOps
from .hosting import Hosting
from .logs import LogLines
from .nodes import Node, never_fits
from .objects import Objects
from .open_apps import App
from .ops import Ops
from .peer import Cork
from .planner import Planner
from .pool import Pool
from .quotas import QuotaOps
from .rollout import Rollout
from .sandboxes import Sandboxes
from .tally import Tally
from .tenants import Tenants
from .terminal import Terminal
from .timetable import Timetable
from .traces import TRACING, Traces
from .tunnels import TunnelOps
from .web import Web

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .scheduler import FairQueue
    from .session import Gone

log = logging.getLogger("minimodal.engine")

RECENT = 1000  # finished calls in `minimodal calls` that are not on record, or ran just now
KEPT_OUTCOMES = 10_000  # finished generators whose end can still be read by id


class Engine:
    """Made by `open_engine` (opening.py). All methods run on its loop."""

    def __init__(
        self,
        backend: Backend,
        tasks: TaskGroup,
        clock: Clock,
        nodes: tuple[Node, ...],
        objects: Objects,
        tenants: Tenants,
    ) -> None:
        self.id = objects.engine
        self.objects = objects
        self.backend = backend
        self.tasks = tasks
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.events = EventLog(clock)
        self.logs = LogLines(self.events, self.loop)
        self.tenants = tenants
        self._past = Tally()  # of pools that have ended
        self.pools: dict[str, Pool] = {}
        self.image_breakers: dict[str, Breaker] = {}  # by digest
        self.apps: dict[str, App] = {}
        self.calls: dict[str, LiveCall] = {}
        self._kept: deque[str] = deque()  # finished calls in the order of their end
        self.gone: deque[Gone] = deque(maxlen=RECENT)  # containers
        self.recent: deque[Ended] = deque(maxlen=RECENT)  # finished calls, for people
        self.blobs: dict[str, bytes] = {}
        self.planner = Planner(self, nodes)
        self.durable: Durable
        self.quotas: QuotaOps
        self.cork = Cork()
        self.hosting: Hosting
        self.timetable: Timetable
        self.ops = Ops()
        CallOps(self)
        FunctionOps(self)
        objects.add_to(self.ops, self.waiting)
        self.web = Web(self)
        TunnelOps(self)
        self.terminal = Terminal(self)
        self.sandboxes = Sandboxes(self)
        self.builds = Builds(self)
        self.traces = Traces(self)
        self._bug: Exception | None = None
        self._crashed = anyio.Event()
        self.seq = 0  # of the last dispatch
        self._keys = 0
        self._admitted_at = 0.0
        self.draining = False  # it stops: no further call begins

    # --- apps and functions --------------------------------------------------------------------------

    async def open_app(
        self, app_id: str, name: str, specs: list[FunctionSpec], *, deployed: bool
    ) -> None:
        """Register functions and build their images; what is open already is replaced.

        Raises ImageBuildError, StartupError; then all is as before.
        """
        rollout = Rollout(self, app_id, name, specs)
        async with rollout.prepared(check=app_id in self.apps):
            rollout.switch(deployed=deployed)

    def opened(self, app: App) -> None:
        """All functions of an app, or of its new version, are in their places."""
        self.apps[app.id] = app
        for pool in self.pools.values():
            pool.reclaim()
        self.planner.wake()
        self.web.changed()
        self.timetable.wake()
        self.events.publish(
            "app.opened",
            app.name or app.id,
            app=app.id,
            deployed=app.deployed,
            version=app.version,
            endpoints=self.web.urls(app.id),
        )

    def close_app(self, app_id: str) -> None:
        app = self.apps.pop(app_id, None)
        if app is None:
            return
        for pool in [pool for pool in self.pools.values() if pool.spec.app == app_id]:
            self.remove_pool(pool)
            if pool.spec.schedule is not None and not app.deployed:
                self.tasks.start_soon(self.durable.store.schedules.forget, pool.spec.key)
        self.web.changed()
        self.events.publish("app.closed", app.name or app_id, app=app_id, deployed=app.deployed)

    def _close_pool(self, pool: Pool) -> None:
        pool.reclaim()
        for live in [live for live in self.calls.values() if live.pool is pool]:
            if not live.decided:
                self._cancel_live(live)
        pool.close()

    # --- pools ---------------------------------------------------------------------------------------

    def add_pool(self, spec: FunctionSpec, app_name: str) -> Pool:
        pool = self.pools.get(spec.key)
        if pool is not None and pool.spec == spec:
            return pool
        reason = never_fits(spec.resources, self.planner.nodes)
        if reason is not None:
            raise ResourceExhaustedError(f"{spec.name} can never run here: {reason}")
        if pool is not None:
            self.drain(pool)
        pool = Pool(self, spec, app_name)
        pool.image = self.builds.of(spec)
        self.place(pool, spec.key)
        self.planner.wake()
        return pool

    def place(self, pool: Pool, key: str) -> None:
        """Make `key` the name by which calls and the planner know the pool."""
        pool.reclaim()
        if self.pools.get(pool.key) is pool:
            del self.pools[pool.key]
        pool.key = pool.queue.name = key
        pool.label = pool.label._replace(key=key)
        self.pools[key] = pool

    def drain(self, pool: Pool) -> None:
        """Take the pool's key away; it ends when the calls that it has are done."""
        self.place(pool, self.new_key(f"{pool.spec.key}-"))
        pool.drain()
        if not pool.unfinished:
            self.remove_pool(pool)

    def remove_pool(self, pool: Pool) -> None:
        """End a pool; calls that it has are cancelled."""
        if self.pools.pop(pool.key, None) is not None:
            self._close_pool(pool)
            self._past.include(pool.tally)

    def new_key(self, stem: str) -> str:
        """A key for a pool that no call is addressed to."""
        self._keys += 1
        return f"{stem}{self._keys}"

    def pool_of(self, key: str) -> Pool:
        """The pool of a function's key: "app id/name", or "app name/name" of an app that runs."""
        pool = self.pools.get(key)
        if pool is not None:
            return pool
        app_name, _, function = key.partition("/")
        for app in reversed(self.apps.values()):
            if app.name == app_name and f"{app.id}/{function}" in self.pools:
                return self.pools[f"{app.id}/{function}"]
        known = sorted({app.name for app in self.apps.values() if app.name})
        raise NotFoundError(
            f"no function {function!r} in a running or deployed app {app_name!r}"
            f"{'; apps here: ' + ', '.join(known) if known else ''}"
        )

    def total(self) -> Tally:
        """What all its pools' calls came to, without the last minutes. From any thread."""
        total = Tally()
        for tally in (self._past, *(pool.tally for pool in tuple(self.pools.values()))):
            total.include(tally)
        return total

    def sample(self) -> None:
        """Note how long the queues are, for the charts."""
        now = self.loop.time()
        for pool in self.pools.values():
            pool.tally.sample(now, len(pool.queue), len(pool.sessions))

    # --- calls ---------------------------------------------------------------------------------------

    def run(self, call: Call, done: Done) -> None:
        """Take an attached call; `done` gets its outcome, also where it is refused."""
        try:
            pool = self.pool_of(call.function)
            if self._keeps(call, pool):
                self.tasks.start_soon(self.durable.run_attached, call, done)
            else:
                self._accept(call, pool).then(done)
        except Error as error:
            done(failed(CallState.ERROR, name_of(error), str(error)))

    def keeps(self, call: Call) -> bool:
        """Whether a call is put on record though somebody waits for it: of a deployed app, and no
        web request. Raises NotFoundError."""
        return self._keeps(call, self.pool_of(call.function))

    def is_deployed(self, pool: Pool) -> bool:
        """Whether its app is."""
        app = self.apps.get(pool.spec.app)
        return app is not None and app.deployed

    def _keeps(self, call: Call, pool: Pool) -> bool:
        if call.stream or not self.is_deployed(pool):
            return False
        return pool.spec.web is None and all(
            name != call.method for name, _ in pool.spec.web_methods
        )

    def accept(self, call: Call) -> LiveCall:
        """Take a call.

        Raises NotFoundError for an unknown function, ResourceExhaustedError over a queue's quota.
        """
        return self._accept(call, self.pool_of(call.function))

    def _accept(self, call: Call, pool: Pool) -> LiveCall:
        live = self.admit(call, pool)
        try:
            pool.submit(live)
        except Error as error:
            pool.unfinished -= 1
            del self.calls[call.id]
            outcome = failed(CallState.ERROR, name_of(error), str(error))
            self.traces.ended(live, outcome, self.loop.time())
            raise
        return live

    def admit(self, call: Call, pool: Pool) -> LiveCall:
        """Put a call into the table, not yet into a queue."""
        now = self.loop.time()
        if now != self._admitted_at:  # calls of one moment share the object: 32 bytes of each
            self._admitted_at = now
        live = self.calls[call.id] = LiveCall(call, pool, self._admitted_at)
        pool.unfinished += 1
        if TRACING in sys.modules:
            self.traces.began(live)
        return live

    def finish(self, live: LiveCall, outcome: Outcome) -> None:
        """Decide how a call ends, once; a second decision is late and is dropped."""
        if live.decided:
            return
        if live.durable:
            self.durable.finish(live, outcome)
        else:
            self.settle(live, outcome)

    def settle(self, live: LiveCall, outcome: Outcome) -> None:
        """Show the outcome to whoever waits."""
        live.outcome = outcome
        live.state = outcome.state
        call_id = live.call.id
        self.remember(live, outcome, self.loop.time())
        if not live.keep:  # what is on record is read there
            del self.calls[call_id]
        else:
            self._kept.append(call_id)
            if len(self._kept) > KEPT_OUTCOMES:
                del self.calls[self._kept.popleft()]
        live.call.payload = EMPTY  # the arguments may be large
        waiters, live.waiters = live.waiters, ()
        for waiter in waiters:
            waiter(outcome)
        if live.stream is not None:
            live.stream.wake()
        live.pool.unfinished -= 1
        if live.pool.draining and not live.pool.unfinished:
            self.remove_pool(live.pool)

    def remember(self, live: LiveCall, outcome: Outcome, now: float) -> None:
        """Note how a call ended, for people: the last ones, traces and counts."""
        self.recent.append(ended(live, outcome, now))
        if self.traces.spans:
            self.traces.ended(live, outcome, now)
        begun = live.started_at if live.attempts or live.slot or outcome.attempts else None
        live.pool.tally.add(outcome.state, now, live.queued_at, begun)

    async def outcome_of(self, live: LiveCall) -> Outcome:
        """Wait for a call's end. Cancelling the wait does not cancel the call."""
        if live.outcome is not None:
            return live.outcome
        event, told = anyio.Event(), list[Outcome]()

        def woken(outcome: Outcome) -> None:
            told.append(outcome)
            event.set()

        live.then(woken)
        try:
            await event.wait()
        finally:
            live.forget(woken)
        return told[0]

    def find(self, call_id: str) -> LiveCall:
        live = self.calls.get(call_id)
        if live is None:
            raise NotFoundError(f"no call {call_id}: it never was, or its result is no longer kept")
        return live

    def cancel(self, call_id: str) -> None:
        """Decide that a call is cancelled, and stop its work. Not an error if it has ended."""
        live = self.calls.get(call_id)
        if live is None:
            self.durable.give_up(call_id)
        elif not live.decided:
            self._cancel_live(live)

    def _cancel_live(self, live: LiveCall) -> None:
        words = f"{live.pool.name} ({live.call.id}) was cancelled"
        self.finish(live, failed(CallState.CANCELLED, "CallCancelled", words, live.attempts))
        live.pool.withdraw(live)

    @contextmanager
    def waiting(self, call_id: str | None, stalls: bool = False) -> Iterator[None]:
        """While user code of call `call_id` waits for a nested one, it lends its slot.

        `stalls`: it waits in a blocking call on its executor's loop, which begins nothing meanwhile.
        """
        live = self.calls.get(call_id) if call_id else None
        if live is None:
            yield
            return
        live.waiting += 1
        live.stalling += stalls
        live.pool.waiting += 1
        try:
            if live.slot is not None:
                live.slot.on_waiting()
            yield
        finally:
            live.waiting -= 1
            live.stalling -= stalls
            live.pool.waiting -= 1

    def dispatch_later(self, queue: FairQueue[Any]) -> None:
        """A user's quota has room again: try the pool whose queue waited for it."""
        pool = self.pools.get(queue.name)
        if pool is not None:
            self.loop.call_soon(pool.dispatch)

    def quotas_changed(self) -> None:
        """Some user may run more than before, or less."""
        for pool in self.pools.values():
            pool.reclaim()
            self.loop.call_soon(pool.dispatch)
        self.planner.wake()

    # --- containers ----------------------------------------------------------------------------------

    def crash(self, loop: asyncio.AbstractEventLoop, problem: dict[str, Any]) -> None:
        """A callback raised: our bug. The engine stops rather than go on half alive."""
        error = problem.get("exception")
        log.error("%s", problem.get("message"), exc_info=error)
        if isinstance(error, Exception) and self._bug is None:
            self._bug = error
            self._crashed.set()

    async def surface_crash(self) -> None:
        await self._crashed.wait()
        assert self._bug is not None
        raise self._bug

    async def serve(self, service: Callable[[], Awaitable[None]]) -> None:
        """Run a service; its failure is the engine's, and the reason that calls are given."""
        try:
            await service()
        except Exception as error:
            self._bug = self._bug or error
            raise

    @property
    def failure(self) -> str:
        """Why it stops by itself; empty if it does not."""
        return f"{type(self._bug).__name__}: {self._bug}" if self._bug else ""

    def blob(self, digest: str) -> bytes:
        """A function that travels by value."""
        if digest not in self.blobs:
            self.blobs[digest] = self.durable.store.blobs.get(digest)
        return self.blobs[digest]

    async def wait_running(self, seconds: float) -> None:
        """Let no further call begin, and those that run finish, for so long at most."""
        self.draining = True
        for pool in self.pools.values():
            pool.reclaim()
        with anyio.move_on_after(seconds):
            for live in [live for live in self.calls.values() if live.slot is not None]:
                await self.outcome_of(live)

    async def aclose(self) -> None:
        """Cancel what runs and let the containers stop; the task group waits for them.

        Durable calls are handed back, but those of apps that end here: the next engine runs them.
        After a failure of ours it is all durable calls, and the others are told why.
        """
        ending = {app.id for app in self.apps.values() if not app.deployed}
        undecided = [live for live in self.calls.values() if not live.decided]
        kept = [
            live
            for live in undecided
            if live.durable and (self._bug or live.pool.spec.app not in ending)
        ]
        if self._bug is not None:
            words = f"the engine stopped: {self.failure}"
            for live in undecided:
                if not live.durable:
                    self.finish(live, failed(CallState.LOST, "CallLost", words))
                    live.pool.withdraw(live)
        sessions = self.durable.withhold(kept)
        for pool in list(self.pools.values()):  # one that drains goes with its last call
            self._close_pool(pool)
        await self.durable.hand_back(kept, sessions)
        await self.sandboxes.close_app(None)
