"""Schedules: the service that makes calls of their ticks, in every engine that has their app open.

A tick and its call are one transaction, so it runs once, whichever engine is first and whenever one
dies. When a tick is due is cron.py's part; what was missed, and whether it may overlap with the call
of the tick before, is the schedule's own policy.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from minimodal.errors import (
    Error,
    InvalidError,
    NotFoundError,
    OutputExpiredError,
    StateError,
)
from minimodal.pickling import NO_ARGUMENTS
from minimodal.protocols import Reply
from minimodal.types import Call, FunctionSpec, Payload, ScheduleSpec, new_id

from .cron import Missed, due, next_after, occurrences
from .ops import Caller, Fields
from .schedules import ScheduleState

if TYPE_CHECKING:
    from .engine import Engine
    from .pool import Pool

log = logging.getLogger("minimodal.engine")

TRY_AGAIN = 5.0  # seconds after the store failed
UPCOMING = 5  # ticks that a listing shows
LONGEST_NAP = 10.0  # seconds after which the clock is looked at again: it may have been set


class Plan(NamedTuple):
    """When a schedule is to be looked at again; for another spec or opening it is void."""

    spec: ScheduleSpec
    opened_at: float
    next: float


class Timetable:
    """`engine.timetable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._store = engine.durable.store
        self._plans: dict[str, Plan] = {}
        self._looked_at = engine.clock.now()
        self._wake = anyio.Event()
        for name, handler in (
            ("schedule.list", self._op_list),
            ("schedule.pause", self._op_pause),
            ("schedule.resume", self._op_resume),
            ("schedule.run", self._op_run),
        ):
            engine.ops.add(name, handler)

    async def run(self) -> None:
        while True:
            self._wake = anyio.Event()
            try:
                seconds = await self.look() - self._engine.clock.now()
            except (
                StateError
            ) as error:  # the disk is full, or the like: the store says when to stop
                log.error("schedules wait: %s", error)
                seconds = TRY_AGAIN
            with anyio.move_on_after(min(max(seconds, 0.0), LONGEST_NAP)):
                await self._wake.wait()

    def wake(self) -> None:
        """An app was opened, or a clock was set: look again."""
        self._wake.set()

    async def look(self) -> float:
        """Make a call of each tick that is due; the time of the next one, or infinity."""
        now = self._engine.clock.now()
        turned_back = now < self._looked_at
        self._looked_at = now
        open_now = dict(self._scheduled())
        self._plans = {key: plan for key, plan in self._plans.items() if key in open_now}
        for key, (pool, opened_at) in open_now.items():
            schedule = pool.spec.schedule
            assert schedule is not None
            plan = self._plans.get(key)
            if plan is None or turned_back or plan[:2] != (schedule, opened_at) or plan.next <= now:
                try:
                    next_tick = await self._one(pool, schedule, opened_at, now)
                except InvalidError as error:  # of an older version, which let it pass
                    log.error("%s: %s", key, error)
                    next_tick = float("inf")
                self._plans[key] = Plan(schedule, opened_at, next_tick)
        return min((plan.next for plan in self._plans.values()), default=float("inf"))

    def _scheduled(self) -> Iterator[tuple[str, tuple[Pool, float]]]:
        for pool in self._engine.pools.values():
            app = self._engine.apps.get(pool.spec.app)
            current = pool.key == pool.spec.key and not pool.spec.variant
            if pool.spec.schedule is not None and app is not None and current:
                yield pool.key, (pool, app.opened_at)

    async def _one(self, pool: Pool, schedule: ScheduleSpec, opened_at: float, now: float) -> float:
        """Deal with one schedule; the time of its next tick."""
        key, schedules = pool.spec.key, self._store.schedules
        state = await schedules.state(key)
        if state is None:
            await schedules.start_from(key, opened_at)
            state = ScheduleState(opened_at, None, False)
        last = _last(schedule, state, opened_at)
        policy = Missed.CATCH_UP if schedule.catch_up else Missed.SKIP
        found = due(schedule, last, now, policy, anchor=opened_at)
        if state.paused:
            return found.next
        if found.last < state.last:
            await schedules.set_back(key, found.last)
        if found.missed:
            self._say(
                pool,
                "ticks were missed; the last of them runs now"
                if found.tick
                else "ticks were missed",
            )
        if found.tick is None:
            if found.last > state.last:
                await schedules.tick(key, found.last, None)
        elif not schedule.overlap and await self._runs(state.last_call):
            self._say(pool, f"not started: {state.last_call} still runs")
            await schedules.tick(key, found.tick, None)
        else:
            await self._engine.durable.tick(pool, found.tick)
        return found.next

    async def _runs(self, call_id: str | None) -> bool:
        if call_id is None:
            return False
        live = self._engine.calls.get(call_id)
        if live is not None:
            return live.outcome is None
        try:
            return await self._store.outcome(call_id) is None
        except (NotFoundError, OutputExpiredError):
            return False

    def _say(self, pool: Pool, text: str) -> None:
        self._engine.events.publish("notice", pool.name, text=f"schedule of {pool.name}: {text}")

    # --- operations ----------------------------------------------------------------------------------

    async def _op_list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The schedules of apps that are open here, and of those that are deployed."""
        now = self._engine.clock.now()
        rows = {row["key"]: row for row in await recorded(self._store, now)}
        for key, (pool, opened_at) in self._scheduled():
            state = await self._store.schedules.state(key)
            rows[key] = schedule_row(pool.spec, pool.app_name, state, opened_at, now)
            rows[key]["hosted"] = True
        return Reply({"schedules": list(rows.values())})

    async def _key(self, fields: Fields) -> str:
        key = str(fields["key"])
        known = {row["key"] for row in await recorded(self._store, 0.0)}
        if key not in known and key not in dict(self._scheduled()):
            raise NotFoundError(f"no function {key} with a schedule is deployed or open here")
        return key

    async def _op_pause(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self._store.schedules.pause(await self._key(fields))
        return Reply({})

    async def _op_resume(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """It goes on with the next tick: those of the pause are not made up for."""
        await self._store.schedules.resume(await self._key(fields), self._engine.clock.now())
        return Reply({})

    async def _op_run(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Run it now, beside its ticks, paused or not."""
        call = Call(new_id("fc"), await self._key(fields), NO_ARGUMENTS, durable=True)
        await self._engine.durable.accept(call)
        return Reply({"id": call.id})


async def recorded(store: Any, now: float) -> list[dict[str, Any]]:
    """The schedules of all deployed apps, from the store alone."""
    rows = []
    for deployment in await store.deployments.running():
        for spec in deployment.specs:
            if spec.schedule is not None:
                state = await store.schedules.state(spec.key)
                row = schedule_row(spec, deployment.app, state, deployment.created, now)
                rows.append({**row, "hosted": False})
    return rows


def schedule_row(
    spec: FunctionSpec, app_name: str, state: ScheduleState | None, opened_at: float, now: float
) -> dict[str, Any]:
    schedule = spec.schedule
    assert schedule is not None
    try:
        last = _last(schedule, state, opened_at) if state else opened_at
        upcoming: float | None = next_after(schedule, max(last, now), anchor=opened_at)
    except Error:
        upcoming = None
    paused = state is not None and state.paused
    ran = state is not None and state.last_call is not None
    return {
        "key": spec.key,
        "app": spec.app,
        "app_name": app_name,
        "name": spec.name,
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "period": schedule.period,
        "months": schedule.months,
        "catch_up": schedule.catch_up,
        "overlap": schedule.overlap,
        "paused": paused,
        "last": state.last if state is not None and ran else None,
        "last_call": state.last_call if state else None,
        "next": None if paused else upcoming,
        "upcoming": [] if paused or upcoming is None else _upcoming(schedule, upcoming, opened_at),
    }


def _upcoming(schedule: ScheduleSpec, first: float, opened_at: float) -> list[float]:
    """The next ticks, for people."""
    following = occurrences(schedule, first, anchor=opened_at)
    return [first, *islice(following, UPCOMING - 1)]


def _last(schedule: ScheduleSpec, state: ScheduleState, opened_at: float) -> float:
    """The last tick that was dealt with. A Period counts from its deployment: that starts it anew."""
    return state.last if schedule.cron is not None else max(state.last, opened_at)
