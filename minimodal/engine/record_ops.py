"""The operations over what is on record: past calls, dead letters, deployments (see ops.py).

They need the store alone, so the command line has them also where no engine runs. All answers are
JSON-able; times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from minimodal.errors import InvalidError
from minimodal.protocols import Reply
from minimodal.types import CallState, Payload

from .calls import failed
from .ops import Caller, Fields, Ops
from .records import Attempt, CallInfo, Stored
from .timetable import recorded

if TYPE_CHECKING:
    from .store import Store


Resume = Callable[[Stored], Awaitable[None]]

MAX_ROWS = 1000  # of one listing


class RecordOps:
    """Handlers over one store. AdminOps adds what only a live engine knows."""

    def __init__(self, ops: Ops, store: Store, resume: Resume | None = None) -> None:
        self._store = store
        self._resume = resume  # runs what is retried; without an engine the next one does
        for name, handler in (
            ("record.calls", self.calls),
            ("record.call", self.call),
            ("record.apps", self.apps),
            ("record.cancel", self.cancel),
            ("app.history", self.app_history),
            ("record.rollback", self.rollback),
            ("record.stop", self.stop),
            ("record.schedules", self.schedules),
            ("record.pause", self.pause),
            ("record.resume", self.unpause),
            ("dlq.list", self.dlq_list),
            ("dlq.show", self.dlq_show),
            ("dlq.retry", self.dlq_retry),
            ("dlq.purge", self.dlq_purge),
        ):
            ops.add(name, handler)

    async def calls(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Calls on record, the newest first. Fields: states, function, app, since, until, limit."""
        return Reply({"calls": await self.find_calls(fields)})

    async def find_calls(self, fields: Fields) -> list[dict[str, Any]]:
        found = await self._store.history.find(
            states=states_of(fields),
            function=fields.get("function"),
            app=fields.get("app"),
            since=fields.get("since"),
            until=fields.get("until"),
            limit=limit_of(fields),
        )
        return [call_row(info) for info in found]

    async def call(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """One call and its failed attempts. Raises NotFoundError."""
        return Reply(await self.show_call(fields["id"]))

    async def show_call(self, call_id: str) -> dict[str, Any]:
        info, attempts = await self._store.history.show(call_id)
        return {"call": call_row(info), "attempts": [attempt_row(each) for each in attempts]}

    async def cancel(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Record that a call is cancelled, where no engine has it."""
        words = failed(CallState.CANCELLED, "CallCancelled", f"{fields['id']} was cancelled")
        await self._store.record(fields["id"], None, words)
        return Reply({})

    async def apps(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"apps": await self.find_apps()})

    async def find_apps(self) -> list[dict[str, Any]]:
        """Every app that was ever deployed, by name."""
        return [
            {
                "id": each.app,
                "name": each.app,
                "state": "deployed" if each.current else "stopped",
                "version": each.version,
                "functions": [spec.name for spec in each.specs],
                "created": each.created,
                "note": each.note,
            }
            for each in await self._store.deployments.latest()
        ]

    async def app_history(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """All versions of an app, the newest first."""
        versions = [
            {
                "version": each.version,
                "created": each.created,
                "note": each.note,
                "current": each.current,
                "functions": [spec.name for spec in each.specs],
            }
            for each in await self._store.deployments.history(fields["app"])
        ]
        return Reply({"app": fields["app"], "versions": versions})

    async def rollback(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """As app.rollback, untried: where no engine runs."""
        version = await self._store.deployments.rollback(fields["app"], fields.get("version"))
        return Reply({"version": version})

    async def stop(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self._store.deployments.stop(fields["app"])
        return Reply({})

    async def schedules(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The schedules of deployed apps."""
        return Reply({"schedules": await recorded(self._store, self._store.clock.now())})

    async def pause(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self._store.schedules.pause(fields["key"])
        return Reply({})

    async def unpause(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self._store.schedules.resume(fields["key"], self._store.clock.now())
        return Reply({})

    # --- dead letters --------------------------------------------------------------------------------

    async def dlq_list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Calls that failed for good, the newest first. Fields: function, limit."""
        function = fields.get("function")
        letters = self._store.dead_letters
        found = await letters.find(function=function, limit=limit_of(fields))
        count = await letters.count(function=function)
        return Reply({"calls": [call_row(info) for info in found], "count": count})

    async def dlq_show(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """One with its attempts; the payload is the pickled input, for its owner to open."""
        letter = await self._store.dead_letters.show(fields["id"])
        attempts = [attempt_row(each) for each in letter.attempts]
        return Reply({"call": call_row(letter.info), "attempts": attempts}, letter.input)

    async def dlq_retry(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Run dead letters again as new calls. Fields: ids, or function, or neither for all."""
        letters, started = self._store.dead_letters, []
        while batch := await letters.retry(ids=fields.get("ids"), function=fields.get("function")):
            for stored in batch:
                started.append(stored.call.id)
                if self._resume is not None:
                    await self._resume(stored)
        return Reply({"calls": started})

    async def dlq_purge(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Drop the inputs of those selected by ids, function, before (a time); all of them at least one."""
        ids, function, before = fields.get("ids"), fields.get("function"), fields.get("before")
        if ids is None and function is None and before is None and not fields.get("all"):
            raise InvalidError("say which dead letters: ids, function, before, or all=true")
        count = await self._store.dead_letters.purge(ids=ids, function=function, before=before)
        return Reply({"count": count})


def call_row(info: CallInfo) -> dict[str, Any]:
    """A call as JSON-able fields, as all listings have it."""
    return {**info._asdict(), "state": info.state.value, "durable": True}


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    failure = attempt.failure
    return {
        "number": attempt.number,
        "lost": attempt.lost,
        "started": attempt.started,
        "ended": attempt.ended,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def limit_of(fields: Fields) -> int:
    limit = int(fields.get("limit") or 100)
    if not 1 <= limit <= MAX_ROWS:
        raise InvalidError(f"limit must be between 1 and {MAX_ROWS}, not {limit}")
    return limit


def states_of(fields: Fields) -> tuple[CallState, ...]:
    try:
        return tuple(CallState(state) for state in fields.get("states") or ())
    except ValueError as error:
        allowed = ", ".join(state.value for state in CallState)
        raise InvalidError(f"{error}; states are {allowed}") from None
