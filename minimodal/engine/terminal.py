"""The user's terminal, which one container at a time may have: `minimodal run -i`.

`front` is the terminal on this side; nobody has attached one where the platform was not started with
`-i`. While a container has it, time stands still for all timeouts: who debugs one call would else
lose the others that wait for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio
from anyio import to_thread

from minimodal.errors import InvalidError, NotFoundError
from minimodal.protocols import Reply
from minimodal.types import Payload, new_id

from .ops import Caller, Fields

if TYPE_CHECKING:
    from .engine import Engine
    from .session import Session

MAX_TYPED_BYTES = 1 << 20  # that the container has not read; more is dropped
LEASE = 10.0  # seconds without a reader after which the holder is taken for dead
LOOK_AGAIN = 0.25  # seconds, for a timeout that falls into a hold


class Size(NamedTuple):
    rows: int
    columns: int


class Front(Protocol):
    """The terminal itself. All methods but `kind` may block; they are called on threads."""

    @property
    def kind(self) -> str:
        """The value of TERM."""
        ...

    def size(self) -> Size: ...

    def give(self, who: str) -> None:
        """Stop all other output; what is typed goes to `Terminal.typed` from now on."""
        ...

    def show(self, data: bytes) -> None: ...

    def take_back(self) -> None:
        """As before `give`. Not an error if it was not given."""
        ...


class Holder:
    """One container's turn."""

    def __init__(self, since: float) -> None:
        self.id = new_id("tm")
        self.since = since
        self.typed = bytearray()
        self.size: Size | None = None  # a new one, not told yet
        self.ended = False
        self.changed = anyio.Event()
        self.lease: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()


class Terminal:
    """`engine.terminal`; its operations are those of agent/terminal.py."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.front: Front | None = None
        self._free = anyio.Semaphore(1, max_value=1)
        self._holder: Holder | None = None
        self._holds: list[tuple[float, float]] = []  # begin and end of those that are over
        for name in ("take", "read", "write", "give"):
            engine.ops.add(f"terminal.{name}", getattr(self, f"_{name}"))

    @property
    def is_held(self) -> bool:
        return self._holder is not None

    def held_since(self, begin: float) -> float:
        """Seconds since `begin`, on the engine's clock, in which a container had the terminal."""
        now = self._engine.clock.monotonic()
        running = [(self._holder.since, now)] if self._holder else []
        return sum(max(0.0, end - max(since, begin)) for since, end in (*self._holds, *running))

    # --- for the front, on the loop ------------------------------------------------------------------

    def typed(self, data: bytes) -> None:
        holder = self._holder
        if holder is not None and len(holder.typed) + len(data) <= MAX_TYPED_BYTES:
            holder.typed += data
            holder.wake()

    def resized(self, size: Size) -> None:
        if self._holder is not None:
            self._holder.size = size
            self._holder.wake()

    # --- operations of containers ----------------------------------------------------------------------

    async def _take(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Wait for one's turn."""
        front, session = self.front, caller.session
        if session is None:
            raise InvalidError("a terminal is given to containers only; here it is yours already")
        if front is None:
            raise InvalidError(
                f"{session.pool.name} asks for your terminal (breakpoint, pdb or interact()), which it "
                "is given by: minimodal run -i script.py"
            )
        await self._free.acquire()
        holder = self._holder = Holder(self._engine.clock.monotonic())
        holder.lease = self._engine.loop.call_later(LEASE, self._end, holder)
        try:
            call = fields.get("parent") or session.id
            await to_thread.run_sync(front.give, f"{session.pool.name} ({call})")
            size = await to_thread.run_sync(front.size)
        except BaseException:
            self._end(holder)
            raise
        self._engine.tasks.start_soon(self._end_with, session, holder)
        return Reply(
            {"id": holder.id, "rows": size.rows, "columns": size.columns, "kind": front.kind}
        )

    async def _read(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """What was typed, or the new size, or that it is over. Who is not heard of again has died."""
        holder = self._holder
        if holder is None or holder.id != fields["id"]:
            return Reply({"ended": True})
        if holder.lease is not None:
            holder.lease.cancel()
        try:
            while not (holder.typed or holder.size or holder.ended):
                await holder.changed.wait()
        except BaseException:
            self._end(holder)
            raise
        holder.lease = self._engine.loop.call_later(LEASE, self._end, holder)
        data, size, holder.size = bytes(holder.typed), holder.size, None
        holder.typed.clear()
        return Reply({"ended": holder.ended, "size": size}, Payload(data))

    async def _write(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        front, holder = self.front, self._holder
        if front is None or holder is None or holder.id != fields["id"]:
            raise NotFoundError("this container does not have the terminal any more")
        # Abandoned when the asker is gone: a terminal that is stopped (Ctrl-S) takes nothing.
        await to_thread.run_sync(front.show, bytes(payload.data), abandon_on_cancel=True)
        return Reply({})

    def _give(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        if self._holder is not None and self._holder.id == fields["id"]:
            self._end(self._holder)
        return Reply({})

    # --- the end of a turn -----------------------------------------------------------------------------

    async def _end_with(self, session: Session, holder: Holder) -> None:
        """A container that is gone holds nothing."""
        while not holder.ended and not session.gone.is_set():
            async with anyio.create_task_group() as tasks:
                for wait in (session.gone.wait, holder.changed.wait):
                    tasks.start_soon(_then_cancel, wait, tasks.cancel_scope)
        self._end(holder)

    def _end(self, holder: Holder) -> None:
        if holder.ended:
            return
        holder.ended = True
        if holder.lease is not None:
            holder.lease.cancel()
        holder.wake()
        self._holds.append((holder.since, self._engine.clock.monotonic()))
        self._holder = None
        self._engine.tasks.start_soon(self._next)

    async def _next(self) -> None:
        front = self.front
        if front is not None:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(front.take_back)
        self._free.release()


async def _then_cancel(wait: Any, scope: anyio.CancelScope) -> None:
    await wait()
    scope.cancel()
