"""A call while the engine has it: its state, who waits for it, and the items that it streamed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from minimodal.types import EMPTY, ByName, Call, CallState, Failure, FunctionSpec, Outcome, Payload

from .input_window import InputWindow

if TYPE_CHECKING:
    from minimodal.protocols import Done

    from .pool import Pool
    from .slot import Slot

SMALL = 512  # bytes of a value that is remembered, for people to see


ON_RECORD = Payload(b"")
"""Stands for the input of a durable call that waits long: it is read from the store when it runs."""


class LiveCall:
    """One accepted call. Its outcome is set once, by `Engine.finish`, and never changed."""

    __slots__ = (
        "attempt",
        "attempts",
        "call",
        "cleared",
        "cold",
        "container",
        "losses",
        "outcome",
        "pool",
        "queued_at",
        "recording",
        "retry",
        "seq",
        "slot",
        "stalling",
        "started_at",
        "state",
        "stream",
        "waiters",
        "waiting",
    )

    def __init__(self, call: Call, pool: Pool, queued_at: float) -> None:
        self.call = call
        self.pool = pool
        self.seq = 0  # names this dispatch of the call in frames
        self.state = CallState.QUEUED
        self.outcome: Outcome | None = None
        self.attempts = 0  # ended by the user's code or by the timeout
        self.losses = 0  # ended because a container or executor went away
        self.slot: Slot | None = None
        self.retry: Callable[[], None] | None = None  # cancels the wait before the next attempt
        self.queued_at = queued_at
        self.started_at = queued_at
        self.container = ""  # that had it last
        self.cold = 0.0  # seconds of its wait in which that container was starting
        self.attempt = 0  # of a durable call: attempts that are on record
        self.cleared = False  # of a durable call: the next attempt is on record
        self.recording = False  # of a durable call: its outcome is being recorded
        self.waiters: list[Done] | tuple[()] = ()  # a million queued calls have none
        self.waiting = 0  # nested calls that its user code waits for
        self.stalling = 0  # of those, the ones that block its executor's loop
        self.stream = StreamBuffer(call.web) if call.stream else None

    @property
    def durable(self) -> bool:
        """On record: it outlives the engine."""
        return self.call.durable

    @property
    def label(self) -> FunctionLabel:
        return self.pool.label

    @property
    def inputs(self) -> InputWindow | None:
        """What a web request's client sends on."""
        return self.stream.inputs if self.stream is not None else None

    @property
    def keep(self) -> bool:
        """Its end is read by id from memory: a generator's, which is not on record."""
        return self.call.stream and not self.call.web

    def then(self, waiter: Done) -> None:
        """Call `waiter` with the outcome once there is one."""
        if self.waiters:
            self.waiters.append(waiter)
        else:
            self.waiters = [waiter]

    def forget(self, waiter: Done) -> None:
        """Do not call `waiter` after all."""
        if self.waiters and waiter in self.waiters:
            self.waiters.remove(waiter)

    @property
    def decided(self) -> bool:
        """Whether nothing can change how it ends."""
        return self.outcome is not None or self.recording

    def __repr__(self) -> str:
        return f"<LiveCall {self.call.id} {self.state.value}>"


class StreamBuffer:
    """Items that were yielded and not yet taken. The credits of the producer bound it."""

    __slots__ = ("_items", "_wake", "inputs", "produced")

    def __init__(self, web: bool) -> None:
        self.produced = False
        self.inputs = InputWindow() if web else None
        self._items: deque[Payload] = deque()
        self._wake: Callable[[], None] | None = None

    def put(self, item: Payload) -> None:
        self.produced = True
        self._items.append(item)
        self.wake()

    def take(self, limit: int) -> list[Payload]:
        return [self._items.popleft() for _ in range(min(limit, len(self._items)))]

    def on_change(self, wake: Callable[[], None]) -> None:
        """Call `wake` once, at the next item or the end."""
        self._wake = wake

    def wake(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None:
            wake()


class FunctionLabel(NamedTuple):
    """Whose a call or container is, in words: what is remembered of it outlives the pool."""

    key: str  # of the pool
    name: str
    app: str  # id
    app_name: str
    module: str  # empty: by value
    secrets: tuple[str, ...]  # ids
    memory_limit: int | None  # MiB


def label_of(spec: FunctionSpec, key: str, app_name: str) -> FunctionLabel:
    module = spec.target.module if isinstance(spec.target, ByName) else ""
    limit = spec.resources.memory_limit
    return FunctionLabel(key, spec.name, spec.app, app_name, module, spec.secrets, limit)


class Ended(NamedTuple):
    """What is remembered of a finished call, without its values. Times are the loop's."""

    call: Call
    label: FunctionLabel
    state: CallState
    error: str
    attempts: int
    losses: int
    queued_at: float
    started_at: float
    finished_at: float
    container: str
    cold: float
    input: Payload  # of a small one, for people; else EMPTY
    value: Payload


def ended(live: LiveCall, outcome: Outcome, now: float) -> Ended:
    failure = outcome.failure
    return Ended(
        live.call,
        live.label,
        outcome.state,
        f"{failure.type}: {failure.message}" if failure else "",
        outcome.attempts,
        live.losses,
        live.queued_at,
        live.started_at,
        now,
        live.container,
        live.cold,
        _if_small(live.call.payload),
        _if_small(outcome.value or EMPTY),
    )


def _if_small(payload: Payload) -> Payload:
    return payload if len(payload.data) <= SMALL and not payload.buffers else EMPTY


def failed(state: CallState, kind: str, message: str, attempts: int = 1) -> Outcome:
    """An outcome that the engine itself decided."""
    return Outcome(state, None, Failure(kind, message), attempts)
