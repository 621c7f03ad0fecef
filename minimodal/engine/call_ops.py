"""The operations about apps and calls (see ops.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from minimodal.call import outcome_fields, pack_items, unpack_items
from minimodal.codec import from_plain
from minimodal.errors import InvalidError
from minimodal.layers import decode
from minimodal.protocols import Reply
from minimodal.types import Call, FunctionSpec, Outcome, Payload

from .ops import Caller, Fields
from .slot import TAKE_BATCH

if TYPE_CHECKING:
    from .engine import Engine

MAX_DEPTH = 64


class CallOps:
    """Handlers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        for name, handler in (
            ("app.open", self.app_open),
            ("app.close", self.app_close),
            ("blob.put", self.blob_put),
            ("image.build", self.image_build),
            ("call.run", self.call_run),
            ("call.spawn", self.call_spawn),
            ("call.spawn_all", self.call_spawn_all),
            ("call.open", self.call_open),
            ("call.wait", self.call_wait),
            ("call.next", self.call_next),
            ("call.cancel", self.call_cancel),
            ("call.info", self.call_info),
        ):
            engine.ops.add(name, handler)

    async def app_open(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Register an app's functions and build their images."""
        specs = [from_plain(FunctionSpec, plain) for plain in fields["functions"]]
        await self._engine.open_app(
            fields["id"], fields["name"], specs, deployed=bool(fields["deployed"])
        )
        return Reply({})

    async def app_close(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        self._engine.close_app(fields["id"])
        await self._engine.sandboxes.close_app(fields["id"])
        return Reply({})

    async def blob_put(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        data = bytes(payload.data)
        store = self._engine.durable.store
        digest = await anyio.to_thread.run_sync(store.blobs.put, data)
        await store.recovery.pin([digest])
        self._engine.blobs[digest] = data
        return Reply({"digest": digest})

    async def image_build(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Build an image now (`Image.build`)."""
        ref = await self._engine.builds.build(decode(fields["image"]))
        return Reply({"digest": ref.digest})

    # --- calls ---------------------------------------------------------------------------------------

    def _call(self, caller: Caller, fields: Fields, payload: Payload, **more: Any) -> Call:
        parent = self._parent(caller, fields)
        depth = parent.depth + 1 if parent else int(fields.get("depth") or 0)
        user, priority = fields.get("user") or "default", int(fields.get("priority") or 0)
        if caller.session:  # a container does not choose whose its calls are
            user, priority = (parent.user, parent.priority) if parent else ("default", 0)
        if depth > MAX_DEPTH:
            raise InvalidError(
                f"{fields['function']} is called {depth} levels deep; the limit is {MAX_DEPTH}. "
                "Does it call itself without end?"
            )
        return Call(
            id=fields["id"],
            function=fields["function"],
            payload=payload,
            method=fields.get("method") or "",
            user=user,
            priority=priority,
            parent=fields.get("parent"),
            depth=depth,
            stream=bool(fields.get("stream")),
            **more,
        )

    def _parent(self, caller: Caller, fields: Fields) -> Call | None:
        """The call that makes this one, if it runs in the container that says so."""
        live = self._engine.calls.get(fields.get("parent") or "") if caller.session else None
        inside = live is not None and live.slot is not None and live.slot.session is caller.session
        return live.call if live is not None and inside else None

    async def call_run(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """An attached call of another process: it is cancelled when its asker gives up."""
        call = self._call(caller, fields, payload)
        call.durable = self._engine.keeps(call)
        engine = self._engine
        try:
            # First of all the caller waits: its own slot must not be given this call if it is stalled.
            with engine.waiting(call.parent, bool(fields.get("stalls"))):
                live = await engine.durable.accept(call) if call.durable else engine.accept(call)
                if live is None:
                    return outcome_reply(await engine.durable.wait(call.id))
                return outcome_reply(await engine.outcome_of(live))
        except BaseException:
            self._engine.cancel(call.id)
            raise

    async def call_spawn_all(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Accept calls of one function that outlive their caller, all or none. Fields: ids, shape."""
        inputs = unpack_items(fields["shape"], payload)
        calls = [
            self._call(caller, {**fields, "id": call_id}, given, durable=True)
            for call_id, given in zip(fields["ids"], inputs, strict=True)
        ]
        await self._engine.durable.accept_all(calls)
        return Reply({})

    async def call_spawn(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Accept a call that outlives its caller."""
        call = self._call(caller, fields, payload, durable=not fields.get("stream"))
        if call.durable:
            await self._engine.durable.accept(call)
        else:  # a generator's items are not kept, so neither is its call
            self._engine.accept(call)
        return Reply({"id": call.id})

    def call_open(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Accept a generator's call; its items are read with call.next."""
        call = self._call(caller, fields, payload)
        self._engine.accept(call)
        return Reply({"id": call.id})

    async def call_wait(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The outcome, or no fields when `timeout` is over."""
        engine = self._engine
        live = engine.calls.get(fields["id"])
        timeout = fields.get("timeout")
        outcome: Outcome | None
        if live is not None and live.outcome is not None:
            outcome = live.outcome
        elif timeout == 0:
            outcome = None if live else await engine.durable.store.outcome(fields["id"])
        else:
            outcome = None
            stalls = bool(fields.get("stalls"))
            with anyio.move_on_after(timeout), engine.waiting(fields.get("parent"), stalls):
                if live is not None:
                    outcome = await engine.outcome_of(live)
                else:
                    outcome = await engine.durable.wait(fields["id"])
        return Reply({}) if outcome is None else outcome_reply(outcome)

    async def call_next(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Items that a generator yielded, at least one; its outcome after the last."""
        live = self._engine.find(fields["id"])
        stream = live.stream
        if stream is None:
            raise InvalidError(f"{live.pool.name} is no generator: use .get()")
        while True:
            items = stream.take(int(fields.get("limit") or TAKE_BATCH))
            if items:
                if live.slot is not None:
                    live.slot.credit(live, len(items))
                shape, packed = pack_items(items)
                return Reply({"shape": shape}, packed)
            if live.outcome is not None:
                return outcome_reply(live.outcome)
            event = anyio.Event()
            stream.on_change(event.set)
            with self._engine.waiting(fields.get("parent"), bool(fields.get("stalls"))):
                await event.wait()

    async def call_cancel(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """When this answers, the outcome is fixed."""
        call_id = fields["id"]
        live = self._engine.calls.get(call_id)
        if live is None:
            await self._engine.durable.cancel(call_id)
        else:
            self._engine.cancel(call_id)
            await self._engine.outcome_of(live)
        return Reply({})

    async def call_info(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """How far a call is, also one of an engine before this. Raises NotFoundError."""
        call_id = fields["id"]
        live = self._engine.calls.get(call_id)
        if live is not None:
            return Reply({"id": call_id, "state": live.state.value, "attempts": live.attempts})
        info, _ = await self._engine.durable.store.history.show(call_id)
        return Reply({"id": call_id, "state": info.state.value, "attempts": info.attempts})


def outcome_reply(outcome: Outcome) -> Reply:
    return Reply(*outcome_fields(outcome))
