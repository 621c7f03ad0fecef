"""The operations for people: what runs here now, the calls, the events (see ops.py).

The command line and the gateway's JSON API show these answers. All are JSON-able; times are seconds
since the epoch, `seconds` are durations. What is only on record is record_ops.py's part.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import anyio

from minimodal import __version__
from minimodal.errors import ConflictError, InvalidError, NotFoundError
from minimodal.protocols import Reply
from minimodal.types import Payload

from .calls import Ended, FunctionLabel, LiveCall
from .events import Event
from .ops import Caller, Fields
from .previews import previews
from .record_ops import RecordOps, call_row, limit_of, states_of

if TYPE_CHECKING:
    from .engine import Engine
    from .pool import Pool
    from .session import Gone, Session


LONGEST_POLL = 60.0
EVENTS_AT_ONCE = 1000
GRAPH_ROWS = 10_000


class AdminOps:
    """Handlers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._record = RecordOps(engine.ops, engine.durable.store, engine.durable.resume)
        for name, handler in (
            ("engine.info", self.info),
            ("app.list", self.apps),
            ("function.list", self.functions),
            ("container.list", self.containers),
            ("container.stop", self.stop_container),
            ("container.retire", self.retire),
            ("call.list", self.calls),
            ("call.show", self.call),
            ("call.stack", self.stack),
            ("call.graph", self.graph),
            ("event.list", self.events),
        ):
            engine.ops.add(name, handler)

    def _wall(self, loop_time: float) -> float:
        return self._engine.clock.now() - (self._engine.loop.time() - loop_time)

    def info(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The engine itself. `nodes`: where containers run, with their budgets."""
        engine = self._engine
        return Reply(
            {
                "id": engine.id,
                "pid": os.getpid(),
                "version": __version__,
                "backend": engine.backend.name,
                "now": engine.clock.now(),
                "tasks": len(asyncio.all_tasks()),
                "nodes": [
                    {"name": node.name, "cpu": node.cpu, "memory": node.memory}
                    for node in engine.planner.nodes
                ],
                "capabilities": engine.backend.describe()._asdict(),
            }
        )

    async def apps(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Apps that are open here, then those that are deployed or stopped on record."""
        engine = self._engine
        functions: dict[str, list[str]] = {}
        for pool in engine.pools.values():
            if not pool.spec.variant and not pool.draining:
                functions.setdefault(pool.spec.app, []).append(pool.name)
        recorded = {row["id"]: row for row in await self._record.find_apps()}
        rows = [
            {
                **recorded.pop(app.id, {"note": ""}),
                "version": app.version,
                "id": app.id,
                "name": app.name,
                "state": "deployed" if app.deployed else "running",
                "hosted": True,
                "functions": functions.get(app.id, []),
                "created": app.opened_at,
            }
            for app in engine.apps.values()
        ]
        rows += [{**row, "hosted": False} for row in recorded.values()]
        return Reply({"apps": rows})

    # --- functions and containers --------------------------------------------------------------------

    def functions(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The pools of one app, or of all. A variant (with_options, an object) has its own row."""
        pools = [p for p in self._engine.pools.values() if _selected(p.label, fields)]
        return Reply({"functions": [self._function_row(pool) for pool in pools]})

    def _function_row(self, pool: Pool) -> dict[str, Any]:
        spec = pool.spec
        breaker = pool.breaker.view(self._engine.loop.time())
        web = {name: endpoint._asdict() for name, endpoint in spec.web_methods}
        return {
            "key": pool.key,
            "app": spec.app,
            "app_name": pool.app_name,
            "name": pool.name,
            "variant": spec.variant,
            "is_class": spec.is_class,
            "is_generator": spec.is_generator,
            "queued": len(pool.queue),
            "running": pool.running,
            "containers": len(pool.sessions),
            "ready": sum(session.ready for session in pool.sessions),
            "draining": pool.draining,
            "service_seconds": pool.service_time,
            "cold_start_seconds": pool.cold_start,
            "max_inputs": spec.max_inputs,
            "timeout": spec.timeout,
            "scaling": pool.scaling._asdict(),
            "resources": spec.resources._asdict(),
            "schedule": spec.schedule._asdict() if spec.schedule else None,
            "web": spec.web._asdict() if spec.web else None,
            "web_methods": web,
            "image": spec.image.digest if spec.image else None,
            "breaker": {
                "state": breaker.state.value,
                "failures": breaker.failures,
                "reason": breaker.reason,
                "retry_in": breaker.retry_in,
                "text": str(breaker),
            },
        }

    def containers(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The containers of one app or function, or all of them, with the calls that they run.

        Those that ended after `since` too, if it is given.
        """
        pools = [p for p in self._engine.pools.values() if _selected(p.label, fields)]
        rows = [self._container_row(session) for pool in pools for session in pool.sessions]
        since = float("inf") if fields.get("since") is None else float(fields["since"])
        rows += [
            self._container_facts(gone)
            | {"state": "ended", "ended": self._wall(gone.at), "reason": gone.reason}
            for gone in self._engine.gone
            if self._wall(gone.at) >= since and _selected(gone.label, fields)
        ]
        return Reply({"containers": rows})

    def _container_facts(self, known: Session | Gone) -> dict[str, Any]:
        """What is said of a container that runs and of one that has ended."""
        label = known.label
        return {
            "id": known.id,
            "function": label.key,
            "name": label.name,
            "app_name": label.app_name,
            "node": known.node,
            "image": known.image.digest,
            "started": self._wall(known.started_at),
            "ready": self._wall(known.ready_at) if known.ready_at else None,
            "cpu": known.usage.cpu,
            "memory": known.usage.memory,
            "memory_limit": label.memory_limit,
            "slots": 0,
            "calls": [],
        }

    def _container_row(self, session: Session) -> dict[str, Any]:
        state = "starting" if not session.ready else "busy" if session.busy else "idle"
        return self._container_facts(session) | {
            "state": "stopping" if session.stopping else state,
            "slots": len(session.slots),
            "ended": None,
            "reason": "",
            "calls": [
                {"id": live.call.id, "seconds": self._engine.clock.monotonic() - live.started_at}
                for slot in session.slots
                for live in slot.inflight.values()
            ],
        }

    def stop_container(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """End a container when its calls are done; with `force` now, and its calls run elsewhere."""
        for pool in self._engine.pools.values():
            for session in pool.sessions:
                if session.id == fields["id"]:
                    session.condemn("it was stopped by hand") if fields.get(
                        "force"
                    ) else session.retire()
                    return Reply({})
        raise NotFoundError(f"no container {fields['id']} runs here")

    def retire(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The container that asks ends when its calls are done, and gets no others."""
        if caller.session is None:
            raise InvalidError("only a container can ask for no further inputs")
        caller.session.retire()
        return Reply({})

    # --- calls ---------------------------------------------------------------------------------------

    async def calls(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Calls, the newest first: those on record, and attached ones that this engine remembers.

        Fields: states, function (key), app (id or name), since, until, limit.
        """
        limit, states = limit_of(fields), {state.value for state in states_of(fields)}
        rows = {row["id"]: row for row in await self._record.find_calls(fields)}
        known: list[LiveCall | Ended] = [*self._engine.recent, *self._engine.calls.values()]
        for row in map(self._call_row, known):
            if row["id"] in rows:  # on record; only memory knows where it ran
                rows[row["id"]] |= {name: row[name] for name in ("container", "cold")}
            elif _wanted(row, fields, states):
                rows[row["id"]] = row
        ordered = sorted(rows.values(), key=lambda row: row["created"], reverse=True)
        return Reply({"calls": ordered[:limit]})

    async def call(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """One call, its failed attempts, and the last lines that it printed."""
        call_id = fields["id"]
        live, ended = self._engine.calls.get(call_id), self._remembered(call_id)
        known: LiveCall | Ended | None = ended or live
        lines = [
            event_row(event)
            for event in self._engine.events.since(0)
            if event.kind == "log" and event.fields["call"] == call_id
        ]
        try:
            shown = await self._record.show_call(call_id)
        except NotFoundError:
            if known is None:
                raise
            shown = {"call": self._call_row(known), "attempts": []}
        if known is not None:
            shown["call"] |= {"container": known.container, "cold": known.cold}
        shown |= await previews(self._engine, shown["call"], live, ended)
        return Reply({**shown, "logs": lines[-EVENTS_AT_ONCE:]})

    async def stack(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Where a running call is. `threads`: its own, or all of its process where that is not known.

        Raises NotFoundError, ConflictError where it does not run.
        """
        call_id = fields["id"]
        live = self._engine.calls.get(call_id) or self._remembered(call_id)
        if live is None:
            raise NotFoundError(f"no call {call_id}")
        if isinstance(live, Ended) or live.slot is None or live.decided:
            raise ConflictError(f"{fields['id']} does not run: it is {live.state.value}")
        session = live.slot.session
        return Reply(
            {
                "call": self._call_row(live),
                "container": session.id,
                "seconds": self._engine.clock.monotonic() - live.started_at,
                "threads": await live.slot.stacks.of(live),
            }
        )

    async def graph(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The calls `ids` and all that they called, callers first; at most `GRAPH_ROWS`."""
        recorded = await self._engine.durable.store.history.tree(fields["ids"], GRAPH_ROWS)
        rows = {info.id: call_row(info) for info in recorded}
        family = set(fields["ids"]) | set(rows)
        remembered: list[LiveCall | Ended] = [*self._engine.recent, *self._engine.calls.values()]
        # A call is accepted after its caller, so one pass in that order finds all.
        for known in sorted(remembered, key=lambda each: each.queued_at):
            call = known.call
            if isinstance(known, Ended) and call.id in rows:
                continue  # on record, where more is known of it
            if (call.id in family or call.parent in family) and len(rows) < GRAPH_ROWS:
                family.add(call.id)
                rows[call.id] = self._call_row(known) | _place_of(known)
        missing = [call_id for call_id in fields["ids"] if call_id not in rows]
        if missing:
            raise NotFoundError(f"no call {missing[0]}")
        return Reply({"calls": sorted(rows.values(), key=lambda row: row["created"])})

    def _remembered(self, call_id: str) -> Ended | None:
        return next((each for each in self._engine.recent if each.call.id == call_id), None)

    def _call_row(self, known: LiveCall | Ended) -> dict[str, Any]:
        """A call in the engine's memory, with the fields of a call on record."""
        call, label = known.call, known.label
        finished = known.finished_at if isinstance(known, Ended) else None
        begun = finished is not None or (isinstance(known, LiveCall) and known.slot is not None)
        return {
            "id": call.id,
            "function": label.key,
            "method": call.method,
            "app": label.app,
            "app_name": label.app_name,
            "user": call.user,
            "priority": call.priority,
            "state": known.state.value,
            "attempts": known.attempts + (begun and finished is None),
            "losses": known.losses,
            "created": self._wall(known.queued_at),
            "started": self._wall(known.started_at) if begun else None,
            "finished": None if finished is None else self._wall(finished),
            "engine": self._engine.id,
            "parent": call.parent,
            "retry_of": None,
            "error": known.error if isinstance(known, Ended) else "",
            "dead": False,
            "durable": call.durable,
            "container": known.container,
            "cold": known.cold,
        }

    # --- events --------------------------------------------------------------------------------------

    async def events(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Events after number `after`, waiting up to `timeout` seconds for the first.

        Fields: after (None: only new ones), timeout, limit, kinds, app, function, call, container.
        `last` is the number to go on from.
        """
        log, wanted = self._engine.events, _filter(fields)
        after = fields.get("after")
        last = log.last if after is None else int(after)
        limit = min(int(fields.get("limit") or EVENTS_AT_ONCE), EVENTS_AT_ONCE)
        found: list[Event] = []
        with anyio.move_on_after(min(float(fields.get("timeout") or 0), LONGEST_POLL)):
            while True:
                for event in log.since(last):
                    last = event.number
                    if wanted(event):
                        found.append(event)
                        if len(found) == limit:
                            break
                if found:
                    break
                await log.wait_after(last)
        return Reply({"events": [event_row(event) for event in found], "last": last})


def event_row(event: Event) -> dict[str, Any]:
    return {
        "number": event.number,
        "kind": event.kind,
        "name": event.name,
        "at": event.at,
        **event.fields,
    }


def _selected(label: FunctionLabel, fields: Fields) -> bool:
    app, function = fields.get("app"), fields.get("function")
    in_app = app is None or app in (label.app, label.app_name)
    return in_app and (function is None or function in (label.key, label.name))


def _wanted(row: dict[str, Any], fields: Fields, states: set[str]) -> bool:
    function, app = fields.get("function"), fields.get("app")
    return (
        (not states or row["state"] in states)
        and (function is None or function in _names(row))
        and (app is None or app in (row["app"], row["app_name"]))
        and row["created"] >= (fields.get("since") or 0.0)
        and row["created"] <= (fields.get("until") or float("inf"))
    )


def _names(row: dict[str, Any]) -> tuple[str, str, str]:
    name = row["function"].partition("/")[2]
    return row["function"], name, f"{row['app_name']}/{name}"


def _filter(fields: Fields) -> Any:
    kinds = set(fields.get("kinds") or ())
    names = [(n, fields[n]) for n in ("call", "container") if fields.get(n) is not None]
    app, function = fields.get("app"), fields.get("function")

    def wanted(event: Event) -> bool:
        return (
            (not kinds or event.kind in kinds)
            and (function is None or event.name == function)
            and (app is None or app in (event.fields.get("app"), event.fields.get("app_name")))
            and all(event.fields.get(name) == value for name, value in names)
        )

    return wanted


def _place_of(known: LiveCall | Ended) -> dict[str, str]:
    """Where a call runs, and the module of its function."""
    module = known.label.module
    found = {"module": module} if module else {}
    if isinstance(known, LiveCall) and known.slot is not None:
        found["container"] = known.slot.session.id
    return found
