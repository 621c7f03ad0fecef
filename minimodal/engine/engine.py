"""`Engine`: everything between a Client and a Backend, on one loop.

Owns the registry of functions, the table of live calls and the services' task group. It sees specs
and Protocols: never an App, never a concrete backend, and it never unpickles anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.clock import Clock, SystemClock
from minimodal.errors import (
    Error,
    NotFoundError,
    ProtocolError,
    ResourceExhaustedError,
    name_of,
)
from minimodal.layers import ImageSpec
from minimodal.protocols import Backend, Reply
from minimodal.types import (
    EMPTY,
    Call,
    CallState,
    Failure,
    FunctionSpec,
    ImageRef,
    Outcome,
    RetryPolicy,
    new_id,
)
from minimodal.wire import Frame, Kind

from .call_ops import CallOps
from .calls import LiveCall, Waiter, failed
from .events import EventLog
from .logs import LogLines
from .nodes import Node, never_fits
from .ops import Caller, Ops, Request
from .planner import Planner
from .pool import Pool
from .tenants import Tenants

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .peer import Peer
    from .scheduler import FairQueue
    from .session import Session

log = logging.getLogger("minimodal.engine")

KEPT_OUTCOMES = 100_000  # finished calls whose result can still be read by id


class Engine:
    """Made by `open_engine`. All methods run on its loop."""

    def __init__(
        self, backend: Backend, tasks: TaskGroup, clock: Clock, nodes: tuple[Node, ...]
    ) -> None:
        self.id = new_id("en")
        self.backend = backend
        self.tasks = tasks
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.events = EventLog(clock)
        self.logs = LogLines(self.events, self.loop)
        self.tenants = Tenants()
        self.pools: dict[str, Pool] = {}
        self.apps: dict[str, App] = {}
        self.calls: dict[str, LiveCall] = {}
        self._kept: dict[str, None] = {}  # finished calls in the order of their end
        self.blobs: dict[str, bytes] = {}
        self.planner = Planner(self, nodes)
        self.ops = Ops()
        CallOps(self)
        self._images: dict[str, ImageRef] = {}
        self._building: set[str] = set()
        self._bug: Exception | None = None
        self._crashed = anyio.Event()
        self.seq = 0  # of the last dispatch

    # --- apps and functions --------------------------------------------------------------------------

    async def open_app(
        self, app_id: str, name: str, specs: list[FunctionSpec], *, deployed: bool
    ) -> None:
        """Register functions and build their images. Raises ImageBuildError."""
        images = {spec.image.digest: spec.image for spec in specs if spec.image is not None}
        await self._build_all(images.values())
        self.apps[app_id] = App(app_id, name, deployed)
        for spec in specs:
            self.add_pool(spec, name).reopened()
        self.events.publish("app.opened", name or app_id, app=app_id, deployed=deployed)

    def close_app(self, app_id: str) -> None:
        app = self.apps.pop(app_id, None)
        if app is None:
            return
        for key in [k for k, pool in self.pools.items() if pool.spec.app == app_id]:
            self.pools.pop(key).close(self._cancel_live)
        self.events.publish("app.closed", app.name or app_id, app=app_id)

    def add_pool(self, spec: FunctionSpec, app_name: str) -> Pool:
        pool = self.pools.get(spec.key)
        if pool is not None and pool.spec == spec:
            return pool
        if pool is not None:
            pool.close(self._cancel_live)
        reason = never_fits(spec.resources, self.planner.nodes)
        if reason is not None:
            raise ResourceExhaustedError(f"{spec.name} can never run here: {reason}")
        pool = self.pools[spec.key] = Pool(self, spec, app_name)
        pool.image = self._images.get(spec.image.digest) if spec.image else None
        self.planner.wake()
        return pool

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

    # --- images --------------------------------------------------------------------------------------

    async def _build_all(self, images: Iterable[ImageSpec]) -> None:
        """Build at the same time; the first failure is raised as itself and ends the others."""
        failures: list[Error] = []

        async def build(image: ImageSpec) -> None:
            try:
                await self._build(image)
            except Error as error:
                failures.append(error)
                builds.cancel_scope.cancel()

        async with anyio.create_task_group() as builds:
            for image in images:
                builds.start_soon(build, image)
        if failures:
            raise failures[0]

    async def _build(self, image: ImageSpec) -> ImageRef:
        digest = image.digest
        ref = self._images.get(digest)
        if ref is None or image.force_from is not None:
            name = digest[:12]

            def report(line: str) -> None:
                self.events.publish("image.build", name, text=line)

            started = self.loop.time()
            ref = self._images[digest] = await self.backend.build(image, report)
            self.events.publish("image.built", name, seconds=self.loop.time() - started)
        return ref

    def build_for(self, pool: Pool) -> None:
        """Build a pool's image in the background, then let the planner try again."""
        if pool.spec.key not in self._building:
            self._building.add(pool.spec.key)
            self.tasks.start_soon(self._build_for, pool)

    async def _build_for(self, pool: Pool) -> None:
        try:
            pool.image = await self._build(pool.spec.image)
        except Error as error:
            failure = Failure(name_of(error), str(error))
            pool.fail_all(Outcome(CallState.ERROR, None, failure))
        finally:
            self._building.discard(pool.spec.key)
            self.planner.wake()

    # --- calls ---------------------------------------------------------------------------------------

    def run(self, call: Call, done: Waiter) -> None:
        """Take an attached call; `done` gets its outcome, also where it is refused."""
        try:
            live = self.accept(call)
        except Error as error:
            done(failed(CallState.ERROR, name_of(error), str(error)))
        else:
            live.waiters.append(done)

    def accept(self, call: Call, keep: bool = False) -> LiveCall:
        """Take a call. `keep`: it can be read by id after its end.

        Raises NotFoundError for an unknown function, ResourceExhaustedError over a queue's quota.
        """
        pool = self.pool_of(call.function)
        live = self.calls[call.id] = LiveCall(call, pool, self.loop.time())
        if keep:
            self._kept[call.id] = None
        try:
            pool.submit(live)
        except Error:
            del self.calls[call.id]
            self._kept.pop(call.id, None)
            raise
        return live

    def finish(self, live: LiveCall, outcome: Outcome) -> None:
        """Record the outcome of a call, once; a second one is late and is dropped."""
        if live.outcome is not None:
            return
        live.outcome = outcome
        live.state = outcome.state
        call_id = live.call.id
        if call_id not in self._kept:
            del self.calls[call_id]
        elif len(self._kept) > KEPT_OUTCOMES:
            self._forget_oldest()
        live.call.payload = EMPTY  # the arguments may be large
        waiters, live.waiters = live.waiters, []
        for waiter in waiters:
            waiter(outcome)
        if live.stream is not None:
            live.stream.wake()

    def _forget_oldest(self) -> None:
        for call_id in self._kept:
            if self.calls[call_id].outcome is not None:
                del self._kept[call_id], self.calls[call_id]
                return

    def find(self, call_id: str) -> LiveCall:
        live = self.calls.get(call_id)
        if live is None:
            raise NotFoundError(f"no call {call_id}: it never was, or its result is no longer kept")
        return live

    def cancel(self, call_id: str) -> None:
        """Decide that a call is cancelled, and stop its work. Not an error if it has ended."""
        live = self.calls.get(call_id)
        if live is not None and live.outcome is None:
            self._cancel_live(live)

    def _cancel_live(self, live: LiveCall) -> None:
        words = f"{live.pool.name} ({live.call.id}) was cancelled"
        self.finish(live, failed(CallState.CANCELLED, "CallCancelled", words, live.attempts))
        live.pool.withdraw(live)

    @contextmanager
    def waiting(self, call_id: str | None) -> Iterator[None]:
        """While user code of call `call_id` waits for a nested one, it lends its slot."""
        live = self.calls.get(call_id) if call_id else None
        if live is None:
            yield
            return
        live.waiting += 1
        live.pool.waiting += 1
        try:
            if live.slot is not None:
                live.slot.on_waiting()
            yield
        finally:
            live.waiting -= 1
            live.pool.waiting -= 1

    def delay_before(self, policy: RetryPolicy, attempt: int) -> float:
        delay = policy.initial_delay * policy.backoff_coefficient ** (attempt - 1)
        return min(max(delay, 1.0), policy.max_delay)

    def dispatch_later(self, queue: FairQueue[Any]) -> None:
        """A user's quota has room again: try the pool whose queue waited for it."""
        pool = self.pools.get(queue.name)
        if pool is not None:
            self.loop.call_soon(pool.dispatch)

    # --- containers ----------------------------------------------------------------------------------

    def environment(self, pool: Pool, session: Session) -> dict[str, str]:
        """Environment of a function's processes. Sent over the control connection, seen nowhere else."""
        return {
            **dict(pool.spec.env),
            "MINIMODAL_IS_REMOTE": "1",
            "MINIMODAL_TASK_ID": session.id,
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": session.id,
        }

    def serve_client(self, peer: Peer, session: Session | None) -> None:
        """Answer the requests of a client at the other end of a socket."""
        caller = Caller(session=session)
        requests: dict[int, Request] = {}

        def on_frame(frame: Frame) -> None:
            if frame.kind is Kind.ABANDON:
                abandoned = requests.pop(frame.seq, None)
                if abandoned is not None:
                    abandoned.abandon()
                return
            if frame.kind is not Kind.REQUEST:
                raise ProtocolError(f"a client does not send {frame.kind.name}")
            op, fields = json.loads(frame.meta)
            seq = frame.seq

            def answered(answer: Reply | BaseException) -> None:
                requests.pop(seq, None)
                if isinstance(answer, Reply):
                    peer.send(Kind.REPLY, seq, json.dumps(dict(answer.fields)), answer.payload)
                else:
                    peer.send(Kind.REFUSED, seq, json.dumps([name_of(answer), str(answer)]))

            request = requests[seq] = Request(self, op, fields, frame.payload, answered, caller)
            request.start()

        def on_lost(reason: str) -> None:
            for request in list(requests.values()):
                request.abandon()

        peer.on_frame = on_frame
        peer.on_lost = on_lost

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

    def close(self) -> None:
        """Cancel what runs and let the containers stop; the task group waits for them."""
        for pool in self.pools.values():
            pool.close(self._cancel_live)


class App:
    """An app that is open."""

    __slots__ = ("deployed", "id", "name")

    def __init__(self, app_id: str, name: str, deployed: bool) -> None:
        self.id, self.name, self.deployed = app_id, name, deployed


@asynccontextmanager
async def open_engine(
    backend: Backend, nodes: tuple[Node, ...], clock: Clock | None = None
) -> AsyncIterator[Engine]:
    """An engine over an open backend, for the length of the block. Leaving it ends all containers.

    `nodes`: the cpu and memory that its containers may use together.
    """
    async with anyio.create_task_group() as services, anyio.create_task_group() as tasks:
        engine = Engine(backend, tasks, clock or SystemClock(), nodes)
        engine.loop.set_exception_handler(engine.crash)
        services.start_soon(engine.surface_crash)
        services.start_soon(engine.planner.run)
        try:
            yield engine
        finally:
            engine.close()
            services.cancel_scope.cancel()
