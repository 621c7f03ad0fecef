"""`FunctionCall`: the handle of a call that was started and not waited for; and `gather`."""

from __future__ import annotations

import builtins
import re
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from . import context, pickling, tracebacks
from .errors import (
    BlockingCallInLoop,
    CallCancelled,
    CallLost,
    ExecutionError,
    FunctionTimeoutError,
    InvalidError,
    error_named,
)
from .face import BothIterator, block, both, stalls_loop, wait
from .types import Buffer, Call, CallState, Failure, Outcome, Payload

if TYPE_CHECKING:
    from .call_graph import InputInfo
    from .protocols import Client

T = TypeVar("T")
R = TypeVar("R", covariant=True)

source_paths: dict[str, str] = {}
"""Container directories of sources and where they are on this machine, for tracebacks."""


def value_of(outcome: Outcome, function: str) -> Any:
    """The value, or the failure raised as the user would have seen it locally."""
    if outcome.value is not None:
        return pickling.loads(outcome.value, f"the result of {function}")
    failure = outcome.failure
    assert failure is not None
    match outcome.state:
        case CallState.ERROR if failure.payload is not None:
            raise tracebacks.rebuild(failure, function, source_paths)
        case CallState.ERROR:
            raise error_named(failure.type, failure.message)
        case CallState.TIMEOUT:
            raise FunctionTimeoutError(failure.message)
        case CallState.CANCELLED:
            raise CallCancelled(failure.message)
        case CallState.LOST:
            error = error_named(failure.type, failure.message)
            raise error if isinstance(error, ExecutionError) else CallLost(failure.message)
        case state:
            raise AssertionError(f"a call does not end in state {state}")


def outcome_from(fields: Mapping[str, Any], payload: Payload) -> Outcome:
    """The Outcome that `outcome_fields` took apart for the wire."""
    state = CallState(fields["state"])
    if state is CallState.OK:
        return Outcome(state, payload, attempts=fields["attempts"])
    carried = payload if fields["pickled"] else None
    failure = Failure(fields["type"], fields["message"], fields["traceback"], carried)
    return Outcome(state, None, failure, fields["attempts"])


def outcome_fields(outcome: Outcome) -> tuple[dict[str, Any], Payload]:
    """An Outcome as JSON-able fields and a payload."""
    fields: dict[str, Any] = {"state": outcome.state.value, "attempts": outcome.attempts}
    if outcome.value is not None:
        return fields, outcome.value
    failure = outcome.failure
    assert failure is not None
    fields |= {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
        "pickled": failure.payload is not None,
    }
    return fields, failure.payload or Payload(b"")


def call_fields(call: Call) -> dict[str, Any]:
    """A Call without its payload as JSON-able fields."""
    return {
        "id": call.id,
        "function": call.function,
        "method": call.method,
        "stream": call.stream,
        "parent": call.parent,
        "depth": call.depth,
        "user": call.user,
        "priority": call.priority,
    }


def pack_items(items: list[Payload]) -> tuple[list[int], Payload]:
    """Several payloads as one: the count of buffers of each, and all parts in a row."""
    parts: list[Buffer] = []
    for item in items:
        parts += (item.data, *item.buffers)
    return [len(item.buffers) for item in items], Payload(b"", tuple(parts))


def unpack_items(shape: list[int], packed: Payload) -> list[Payload]:
    items: list[Payload] = []
    at = 0
    for count in shape:
        data, *buffers = packed.buffers[at : at + 1 + count]
        items.append(Payload(data, tuple(buffers)))
        at += 1 + count
    return items


def _refuse_to_wait_for_oneself(call_id: str) -> None:
    if call_id in context.calls_on_loop and stalls_loop():
        raise BlockingCallInLoop(
            f"{call_id} runs on the event loop that this call blocks, so it could never end. Await the "
            "`.aio` form instead"
        )


class ItemReader(Generic[T]):
    """Reads the items of a generator call in batches. What waits unread is bounded by the engine."""

    def __init__(self, call_id: str, function: str, client: Client) -> None:
        self._id = call_id
        self._function = function
        self._client = client
        self._items: list[Payload] = []
        self._ended = False

    async def advance(self) -> T:
        """The next item; StopAsyncIteration at the end, or the generator's own error."""
        while not self._items:
            if self._ended:
                raise StopAsyncIteration
            _refuse_to_wait_for_oneself(self._id)
            reply = await context.ask("call.next", client=self._client, id=self._id)
            if "shape" in reply.fields:
                self._items = unpack_items(reply.fields["shape"], reply.payload)[::-1]
            else:
                self._ended = True
                value_of(outcome_from(reply.fields, reply.payload), self._function)
        item: T = pickling.loads(self._items.pop(), f"an item of {self._function}")
        return item

    async def close(self) -> None:
        """Tell the producer to stop if it has not ended."""
        if not self._ended:
            self._ended = True
            await context.ask("call.cancel", client=self._client, id=self._id)


_GROUP = re.compile(r"(fc-\w+)\.of(\d+)\Z")


def group_id(group: str, count: int) -> str:
    """The id of a handle for `count` calls. It says how many they are: nothing is to be looked up."""
    return f"{group}.of{count}"


def member_id(group: str, index: int) -> str:
    """The id of one call of a group."""
    return f"{group}.{index}"


async def _gather(*calls: FunctionCall[T]) -> list[T]:
    for call in calls:
        if not isinstance(call, FunctionCall):
            raise InvalidError(f"gather takes the handles that spawn() gives, not {call!r}")
    # One after the other costs nothing: the calls themselves run in parallel.
    return [await call._get(None) for call in calls]


class _Gather:
    """The results of several calls, in their order. The first failure is raised. Also `.aio`."""

    def __call__(self, *calls: FunctionCall[T]) -> list[T]:
        return block(_gather(*calls))

    async def aio(self, *calls: FunctionCall[T]) -> list[T]:
        return await wait(_gather(*calls))


gather = _Gather()


class FunctionCall(Generic[R]):
    """A call that runs, or has run, somewhere else. Its result is kept and can be read repeatedly.

    Made by `spawn` and `from_id`. A handle of `experimental_spawn_map` stands for many calls.
    """

    gather = gather

    def __init__(self, object_id: str, function: str = "", client: Client | None = None) -> None:
        self._id = object_id
        self._function = function or f"call {object_id}"
        self._asked = client

    def __repr__(self) -> str:
        return f"<FunctionCall {self._id}>"

    def _repr_html_(self) -> str:
        from .display import card

        return card("FunctionCall", self._id, {"function": self._function})

    @property
    def object_id(self) -> str:
        """The id, such as "fc-3f2a…". `FunctionCall.from_id` makes a handle of it anywhere."""
        return self._id

    @staticmethod
    def from_id(object_id: str) -> FunctionCall[Any]:
        """The handle of the call `object_id`, also one of another process. Does no I/O.

        Raises InvalidError where the text is no call id; using the handle raises NotFoundError
        where there is no such call, and OutputExpiredError where its result is no longer kept.
        """
        if not isinstance(object_id, str) or not object_id.startswith("fc-"):
            raise InvalidError(f"{object_id!r} is no call id; those start with 'fc-'")
        return FunctionCall(object_id)

    @both
    async def get(self, timeout: float | None = None, *, index: int = 0) -> R:
        """Wait for the result, at most `timeout` seconds; 0 only looks.

        Parameters: `index`, which of the inputs of `experimental_spawn_map`. Raises the function's
        own exception, or the builtin TimeoutError when `timeout` is over (the call goes on).
        """
        return await self._get(timeout, index)

    @both
    async def result(self, timeout: float | None = None) -> R:
        """The same as `get`, with its `timeout` in seconds."""
        return await self._get(timeout)

    async def _get(self, timeout: float | None, index: int = 0) -> R:
        call_id = self._member(index)
        _refuse_to_wait_for_oneself(call_id)
        reply = await context.ask("call.wait", client=self._client, id=call_id, timeout=timeout)
        if not reply.fields:
            raise builtins.TimeoutError(f"{self._function} has not finished after {timeout} s")
        value: R = value_of(outcome_from(reply.fields, reply.payload), self._function)
        return value

    @property
    def _members(self) -> tuple[str, ...]:
        """The ids of the calls that this stands for."""
        found = _GROUP.match(self._id)
        if found is None:
            return (self._id,)
        return tuple(member_id(found[1], index) for index in range(int(found[2])))

    def _member(self, index: int) -> str:
        members = self._members
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(members):
            raise InvalidError(f"{self!r} has {len(members)} inputs, and none with index {index!r}")
        return members[index]

    @both
    async def num_inputs(self) -> int:
        """How many inputs it stands for: 1, or those of `experimental_spawn_map`."""
        return len(self._members)

    def iter(self, start: int = 0, end: int | None = None) -> BothIterator[R]:
        """The results from input `start` up to before `end`, in order (`for` or `async for`).

        Raises a function's own exception when its turn comes.
        """
        indexes = iter(range(len(self._members))[start:end])

        async def advance() -> R:
            index = next(indexes, None)
            if index is None:
                raise StopAsyncIteration
            return await self._get(None, index)

        async def close() -> None:
            """The calls go on without a reader."""

        return BothIterator(advance, close)

    @both
    async def get_call_graph(self) -> list[InputInfo]:
        """The calls that it made, those that they made, and so on, as a tree.

        The list has one element, which stands for the caller; this call is among its `children`.
        """
        from .call_graph import graph_of

        members = self._members
        reply = await context.ask("call.graph", client=self._client, ids=members)
        return graph_of(members, reply.fields["calls"])

    @overload
    def stream(self: FunctionCall[Iterable[T]]) -> BothIterator[T]: ...

    @overload
    def stream(self: FunctionCall[AsyncIterable[T]]) -> BothIterator[T]: ...

    def stream(self) -> BothIterator[Any]:
        """The items of a generator that was spawned, as they are produced (`for` or `async for`)."""
        reader: ItemReader[Any] = ItemReader(self._id, self._function, self._client)
        return BothIterator(reader.advance, reader.close)

    @both
    async def cancel(self, terminate_containers: bool = False) -> None:
        """Stop the work. Afterwards the outcome is fixed: cancelled, or the one recorded before.

        `terminate_containers` is Modal's: what user code does not stop is killed in any case.
        """
        for call_id in self._members:
            await context.ask(
                "call.cancel", client=self._client, id=call_id, terminate=terminate_containers
            )

    @both
    async def status(self) -> str:
        """queued, running, ok, error, timeout, cancelled or lost. Of many: the least far of them."""
        states = []
        for call_id in self._members:
            reply = await context.ask("call.info", client=self._client, id=call_id)
            states.append(CallState(reply.fields["state"]))
        order = list(CallState)
        return min(states, key=order.index).value if states else CallState.OK.value

    @property
    def _client(self) -> Client:
        """The engine that took the call while that lives, else one that can read the record."""
        if self._asked is None or not self._asked.is_alive():
            from .lookup import client_for_calls

            self._asked = client_for_calls()
        return self._asked

    def __reduce__(self) -> Any:
        # A handle travels as its id: the other side has its own client.
        return FunctionCall, (self._id, self._function)
