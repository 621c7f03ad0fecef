"""Durable calls: the engine's memory decides, the store remembers, and this is between them.

A spawned call, or any call of a deployed app but a web request, is on record before it is accepted;
each attempt is on record before it is sent to a container; its outcome is on record before anybody
sees it. So a call that kills its engine every time is counted and ends in the dead letters.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from minimodal.engine_lock import is_alive
from minimodal.errors import Error, NotFoundError, StateError, name_of
from minimodal.pickling import NO_ARGUMENTS
from minimodal.types import Call, CallState, Failure, FunctionSpec, Outcome, new_id

from .calls import ON_RECORD, LiveCall, failed
from .history import Retention
from .pool import MAX_LOSSES
from .records import is_small
from .trouble import Damaged

if TYPE_CHECKING:
    from minimodal.home import Home
    from minimodal.protocols import Done

    from .engine import Engine
    from .pool import Pool
    from .records import Stored
    from .session import Session
    from .slot import Slot
    from .store import Store

log = logging.getLogger("minimodal.engine")

INPUTS_HELD = 1000  # waiting calls of one function whose small inputs are in memory
TAKE_OVER_INTERVAL = 3.0  # seconds between looks for calls of engines that died
RECORD_AGAIN = 1.0  # seconds after which what could not be recorded is tried again
POLL_INTERVAL = 0.1  # seconds between looks at a call that another engine runs
STOPPED_WITHIN = 3.0  # seconds for what runs to be interrupted, or killed, at the end
EXPIRE_INTERVAL = 3600.0


class Durable:
    """`engine.durable`: the life of durable calls, over one store."""

    def __init__(self, engine: Engine, store: Store, home: Home, retention: Retention) -> None:
        self._engine = engine
        self._retention = retention
        self.store = store
        self._home = home
        self._known_specs: dict[str, FunctionSpec] = {}
        self._accepting: set[str] = set()
        self._closing = anyio.Event()

    # --- a call's life -------------------------------------------------------------------------------

    async def accept(self, call: Call) -> LiveCall | None:
        """Record a call and queue it. Once this returns, it survives the engine.

        None where it was on record before (asked twice), and has ended or is another engine's.
        """
        await self.accept_all([call])
        return self._engine.calls.get(call.id)

    async def accept_all(self, calls: list[Call]) -> None:
        """As `accept`, for calls of one function and user: all or none, in one transaction."""
        pool = self._engine.pool_of(calls[0].function)
        for call in calls:
            call.function = pool.spec.key
        pool.require_working()  # what is on record is never refused
        with self._engine.tenants.places(calls[0].user, len(calls)):
            await self._remember(pool)
            known = await self.store.accept(calls)
        new = [call for call in calls if call.id not in known] if known else calls
        try:
            pool = self._engine.pool_of(pool.spec.key)  # a new version may have taken its place
        except Error:  # its app was closed meanwhile, which cancels what it has
            for call in new:
                await self.cancel(call.id)
            raise
        for call in new:
            self._enter(self._engine.admit(call, pool))

    def _enter(self, live: LiveCall) -> None:
        """Queue a call that is on record; what waits long, or is large, waits there without its input."""
        pool, call = live.pool, live.call
        pool.enter(live)
        if live in pool.queue and (len(pool.queue) > INPUTS_HELD or not is_small(call.payload)):
            call.payload = ON_RECORD

    async def tick(self, pool: Pool, tick: float) -> LiveCall | None:
        """Make a call of a schedule's tick; None: the tick had its call before, here or elsewhere."""
        call = Call(new_id("fc"), pool.spec.key, NO_ARGUMENTS, durable=True)
        await self._remember(pool)
        row = await self.store.row_of(call)
        if not await self.store.schedules.tick(pool.spec.key, tick, row):
            return None
        live = self._engine.admit(call, pool)
        pool.queue_again(live)
        return live

    async def run_attached(self, call: Call, done: Done) -> None:
        """A call that somebody waits for: on record, but cancelled when they give up."""
        call.durable = True
        self._accepting.add(call.id)
        try:
            live = await self.accept(call)
        except Error as error:
            done(failed(CallState.ERROR, name_of(error), str(error)))
            return
        finally:
            wanted = call.id in self._accepting
            self._accepting.discard(call.id)
        if live is None:
            done(await self.wait(call.id))
        elif live.outcome is not None:
            done(live.outcome)
        else:
            live.then(done)
        if not wanted:
            self._engine.cancel(call.id)

    def give_up(self, call_id: str) -> None:
        """Who waits for a call gives up while it is being recorded."""
        self._accepting.discard(call_id)

    async def _remember(self, pool: Pool) -> None:
        """The spec, for the engine that may take the call over."""
        key = pool.spec.key
        if self._known_specs.get(key) is not pool.spec:
            await self.store.recovery.put_spec(pool.spec)
            self._known_specs[key] = pool.spec

    def begin(self, live: LiveCall, slot: Slot) -> None:
        """Record that an attempt begins, with the slot kept for it, and then send it."""
        slot.reserved += 1
        self._engine.tasks.start_soon(self._begin, live, slot)

    def begin_batch(self, batch: list[LiveCall], slot: Slot) -> None:
        """As `begin`, for the members of a batch; those that are not durable just wait with it."""
        slot.reserved += 1
        self._engine.tasks.start_soon(self._begin_batch, batch, slot)

    async def _begin(self, live: LiveCall, slot: Slot) -> None:
        try:
            runs = await self._attempt_started(live)
        finally:
            slot.reserved -= 1
        if runs:
            live.pool.give(live, slot)

    async def _begin_batch(self, batch: list[LiveCall], slot: Slot) -> None:
        runs: list[LiveCall] = []

        async def start(live: LiveCall) -> None:
            if not live.durable or live.cleared or await self._attempt_started(live):
                runs.append(live)

        try:
            async with anyio.create_task_group() as starts:
                for live in batch:
                    starts.start_soon(start, live)
        finally:
            slot.reserved -= 1
        if runs:
            runs[0].pool.give_batch(runs, slot)

    async def _attempt_started(self, live: LiveCall) -> bool:
        """Record that the next attempt begins. False where the call is not to be run now."""
        on_record = live.call.payload is ON_RECORD
        try:
            if not await self._has_input(live):
                return False
            ours = await self.store.attempt_started(live.call.id, live.attempt + 1)
        except StateError as error:  # the disk is full, or the like: the call can wait
            log.error("%s waits: %s", live.call.id, error)
            if on_record:
                live.call.payload = ON_RECORD
            live.pool.left(live)
            if not live.decided:
                live.pool.retry_later(live, RECORD_AGAIN)
            return False
        if live.decided:
            live.pool.left(live)
            return False
        if ours:
            live.attempt += 1
            live.cleared = True
            return True
        live.pool.left(
            live
        )  # cancelled by another process, or taken over: what is on record counts
        self._show(live, await self._on_record(live))
        return False

    async def _has_input(self, live: LiveCall) -> bool:
        """Read the input of a call that waited without. False: it is damaged, so the call is
        lost. Raises StateError where it cannot be read just now."""
        if live.call.payload is ON_RECORD:
            try:
                live.call.payload = await self.store.input(live.call.id)
            except (NotFoundError, Damaged) as error:
                words = f"the input of {live.call.id} cannot be read: {error}"
                live.pool.left(live)
                self._engine.finish(live, failed(CallState.LOST, "CallLost", words, live.attempt))
                return False
            if live.decided:  # meanwhile
                live.pool.left(live)
                return False
        return True

    def attempt_failed(
        self, live: LiveCall, failure: Failure, *, lost: bool, delay: float = 0.0
    ) -> None:
        """Record an attempt, and then try the call again after `delay` seconds.

        Only then: within one transaction the next attempt might be recorded before the end of this.
        """
        live.cleared = False
        live.state = CallState.QUEUED
        self._engine.tasks.start_soon(self._attempt_failed, live, failure, lost, delay)

    async def _attempt_failed(
        self, live: LiveCall, failure: Failure, lost: bool, delay: float
    ) -> None:
        retry_at = self._engine.clock.now() + delay if delay else None
        call_id, attempt = live.call.id, live.attempt
        while not (live.decided or self._closing.is_set()):
            try:
                await self.store.attempt_failed(
                    call_id, attempt, failure, lost=lost, retry_at=retry_at
                )
                break
            except StateError as error:
                log.error("%s waits: %s", call_id, error)
                await self._pause()
        if live.decided:
            return
        if delay:
            live.pool.retry_later(live, delay)
        else:
            live.pool.queue_again(live)

    def finish(self, live: LiveCall, outcome: Outcome) -> None:
        """Record the outcome, then show what is on record: ours, unless somebody was earlier."""
        live.recording = True
        self._engine.tasks.start_soon(self._finish, live, outcome)

    async def _finish(self, live: LiveCall, outcome: Outcome) -> None:
        lost = outcome.state is CallState.LOST
        attempt = None if outcome.state is CallState.CANCELLED else live.attempt
        while True:
            try:
                won = await self.store.record(live.call.id, attempt, outcome, lost=lost)
                shown = outcome if won else await self._on_record(live)
                break
            except StateError as error:  # the disk is full, or the like: nobody sees it before
                log.error("the outcome of %s waits: %s", live.call.id, error)
                if self._closing.is_set():  # it stays unfinished on record: the next engine runs it
                    shown = failed(CallState.LOST, "StateError", str(error))
                    break
                await self._pause()
        self._show(live, shown)

    async def _pause(self) -> None:
        """Before the store is tried again; cut short when the engine stops."""
        with anyio.move_on_after(RECORD_AGAIN):
            await self._closing.wait()

    async def _on_record(self, live: LiveCall) -> Outcome:
        outcome = await self.store.outcome(live.call.id)
        words = f"{live.call.id} was taken over by another engine"
        return outcome or failed(CallState.LOST, "CallLost", words)

    def _show(self, live: LiveCall, outcome: Outcome) -> None:
        live.recording = False
        self._engine.settle(live, outcome)

    # --- calls of other engines ----------------------------------------------------------------------

    async def wait(self, call_id: str) -> Outcome:
        """The outcome of a call that is not in this engine's memory."""
        while (outcome := await self.store.outcome(call_id)) is None:
            live = self._engine.calls.get(call_id)  # taken over meanwhile
            if live is not None:
                return await self._engine.outcome_of(live)
            await anyio.sleep(POLL_INTERVAL)
        return outcome

    async def cancel(self, call_id: str) -> None:
        await self.store.outcome(call_id)  # raises where there is no such call
        words = failed(CallState.CANCELLED, "CallCancelled", f"{call_id} was cancelled")
        await self.store.record(call_id, None, words)

    # --- after a crash -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take over what dead engines left, now and again; drop what is older than its retention."""
        expire_at = 0.0
        while True:
            try:
                await self._take_over()
                if self._engine.loop.time() >= expire_at:
                    expire_at = self._engine.loop.time() + EXPIRE_INTERVAL
                    await self.store.history.expire(self._retention)
                    await self.store.history.collect_blobs(self._is_alive)
                await self._engine.quotas.follow()
            except (StateError, OSError) as error:  # the disk is full, or no descriptor is free
                log.error("%s", error)
            await anyio.sleep(TAKE_OVER_INTERVAL)

    async def _take_over(self) -> None:
        while taken := await self.store.recovery.take_over(self._is_alive):
            for stored in taken:
                await self.resume(stored)
            text = f"{len(taken)} unfinished calls of an engine that died run again"
            self._engine.events.publish("notice", "recovery", text=text)

    def _is_alive(self, engine: str) -> bool:
        return bool(engine) and is_alive(self._home, engine)  # "": handed back

    async def resume(self, stored: Stored) -> None:
        """Queue a recorded call again, with the attempts that it has behind it."""
        call = stored.call
        if stored.losses > MAX_LOSSES:
            await self._give_up(call, stored.attempt)
            return
        try:
            pool = await self._pool_for(call.function)
        except Error as error:
            words = failed(CallState.ERROR, type(error).__name__, str(error))
            await self.store.record(call.id, stored.attempt, words)
            return
        live = self._engine.admit(call, pool)
        live.attempts, live.losses, live.attempt = stored.errors, stored.losses, stored.attempt
        delay = (stored.not_before or 0.0) - self._engine.clock.now()
        if delay > 0:
            pool.retry_later(live, delay)
        else:
            self._enter(live)

    async def _give_up(self, call: Call, attempt: int) -> None:
        words = f"{call.function}: engines or containers died {attempt} times while it ran"
        outcome = failed(CallState.LOST, "CallLost", words, attempt)
        await self.store.record(call.id, attempt, outcome, lost=True)

    async def _pool_for(self, key: str) -> Pool:
        try:
            return self._engine.pool_of(key)
        except NotFoundError:
            spec = await self.store.recovery.spec(key)
            self._known_specs[key] = spec
            return self._engine.add_pool(spec, "")

    def withhold(self, calls: list[LiveCall]) -> set[Session]:
        """On a graceful stop: the calls are not begun here any more. Gives the containers to stop."""
        self._closing.set()
        sessions = {live.slot.session for live in calls if live.slot is not None}
        for live in calls:
            live.recording = True  # whatever its executor still answers comes too late
            live.pool.withdraw(live)
            words = (
                f"the engine stopped, and the next one goes on with {live.pool.name}: "
                f"FunctionCall.from_id({live.call.id!r})"
            )
            waiters, live.waiters = live.waiters, ()
            for waiter in waiters:
                waiter(failed(CallState.LOST, "CallLost", words))
        return sessions

    async def hand_back(self, calls: list[LiveCall], sessions: set[Session]) -> None:
        """What is unfinished waits for the next engine, without a loss.

        Where it ran, in `sessions`, all has to end first: the other engine may begin it at once.
        """
        with anyio.move_on_after(STOPPED_WITHIN):  # @exit may take longer
            for session in sessions:
                await session.gone.wait()
        await self.store.recovery.hand_back([live.call.id for live in calls])
