"""`map`, `starmap`, `for_each`, `spawn_map`: one function over many inputs, in parallel.

Inputs are pulled lazily in the caller's thread, at most `WINDOW` ahead of the results that were
taken, fewer if they are large; so an endless generator is a fine input. Results come in input order
or as they finish.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sized,
)
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from . import context
from .call import FunctionCall, call_fields, group_id, member_id, pack_items, value_of
from .errors import InvalidError
from .face import BothIterator, Pending, both, warn_unused
from .types import Call, Outcome, new_id

if TYPE_CHECKING:
    from .function import Function
    from .protocols import Abandon, Client

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

WINDOW = 1000
WINDOW_BYTES = 1 << 30  # or fewer, if inputs are large, but
WINDOW_LEAST = 32  # so many that containers have something to do
LARGE_BYTES = 64 << 10  # a thousand of what is smaller need not be counted
SPAWNED_AT_ONCE = 500  # calls in one request of spawn_map
SPAWNED_BYTES = 4 << 20  # or fewer, if their arguments are large


class _MapMethod(Generic[P, R]):
    """`f.map(...)` and `f.map.aio(...)`; `spread` is starmap's way of taking one tuple each."""

    def __init__(self, function: Function[P, R, Any], name: str, spread: bool) -> None:
        self._function = function
        self._name = name
        self._spread = spread

    def __call__(
        self,
        *inputs: Iterable[Any] | AsyncIterable[Any],
        kwargs: Mapping[str, Any] = {},  # read only
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: bool = True,
    ) -> BothIterator[R]:
        """Run the function once for each input.

        Parameters: several iterables are zipped; `kwargs` go to every call; `order_outputs=False`
        gives results as they finish; `return_exceptions=True` puts an exception in the place of
        its result. Nothing runs before the first result is asked for.
        """
        del wrap_returned_exceptions  # Modal's deprecated option
        source = _checked_inputs(self._function, self._name, inputs, self._spread)
        run: _MapRun[R] = _MapRun(
            self._function, source, dict(kwargs), order_outputs, return_exceptions
        )
        run.total = _total(inputs)
        return BothIterator(run.advance, run.close, run.ready)

    def aio(self, *inputs: Any, **options: Any) -> BothIterator[R]:
        """For `async for result in f.map.aio(...)`; inputs may be async iterables too."""
        return self(*inputs, **options)


class MapMethods(Generic[P, R]):
    """The parallel ways of calling, mixed into Function."""

    @property
    def map(self) -> _MapMethod[P, R]:
        """Run once for each input, in parallel; yields results in input order."""
        return _MapMethod(self, "map", spread=False)  # type: ignore[arg-type]  # always a Function

    @property
    def starmap(self) -> _MapMethod[P, R]:
        """As `map`, for an iterable of argument tuples."""
        return _MapMethod(self, "starmap", spread=True)  # type: ignore[arg-type]  # always a Function

    @both
    async def for_each(
        self,
        *inputs: Any,
        kwargs: Mapping[str, Any] = {},  # read only
        ignore_exceptions: bool = False,
    ) -> None:
        """Run once for each input and wait for all; the results are dropped."""
        method: _MapMethod[P, R] = _MapMethod(self, "for_each", spread=False)  # type: ignore[arg-type]  # a Function
        results = method(
            *inputs, kwargs=kwargs, order_outputs=False, return_exceptions=ignore_exceptions
        )
        while True:
            try:
                await results._advance()
            except StopAsyncIteration:
                return
            except BaseException:
                await results._close()
                raise

    @both
    async def spawn_map(self, *inputs: Any, kwargs: Mapping[str, Any] = {}) -> None:
        """Start one durable call for each input and wait for none."""
        await self._spawn_each("spawn_map", inputs, kwargs)

    @both
    async def experimental_spawn_map(
        self, *inputs: Any, kwargs: Mapping[str, Any] = {}
    ) -> FunctionCall[R]:
        """As `spawn_map`, and gives one handle for all of them.

        Its `num_inputs()` says how many they are; `get(index=…)` and `iter()` read the results, in
        this process or, by its id, in another.
        """
        return await self._spawn_each("experimental_spawn_map", inputs, kwargs)

    async def _spawn_each(
        self, what: str, inputs: Any, kwargs: Mapping[str, Any]
    ) -> FunctionCall[R]:
        function: Function[Any, Any, Any] = self  # type: ignore[assignment]  # always a Function
        source = _checked_inputs(function, what, inputs, spread=False)
        group, count = new_id("fc"), 0
        client, nbytes = None, 0
        batch: list[Call] = []
        async for args in _each(source):
            client, call = await function._call(args, dict(kwargs))
            call.id = member_id(group, count)
            batch.append(call)
            count, nbytes = count + 1, nbytes + call.payload.nbytes
            if len(batch) == SPAWNED_AT_ONCE or nbytes > SPAWNED_BYTES:
                await _spawn_all(client, batch)
                batch, nbytes = [], 0
        if client is not None and batch:
            await _spawn_all(client, batch)
        return FunctionCall(group_id(group, count), function.name, client)


async def _spawn_all(client: Client, calls: list[Call]) -> None:
    """One request and one transaction for calls of one function."""
    shape, packed = pack_items([call.payload for call in calls])
    ids = [call.id for call in calls]
    await context.ask(
        "call.spawn_all", packed, client=client, ids=ids, shape=shape, **call_fields(calls[0])
    )


def _total(inputs: tuple[Any, ...]) -> int | None:
    """How many inputs there are, where all the iterables say so."""
    lengths = [len(one) for one in inputs if isinstance(one, Sized)]
    return min(lengths) if len(lengths) == len(inputs) else None


def _checked_inputs(
    function: Function[Any, Any, Any], what: str, inputs: tuple[Any, ...], spread: bool
) -> Iterator[Any] | AsyncIterator[Any]:
    """The tuples of arguments. Raises InvalidError."""
    function._require_plain(what, "remote_gen")
    if not inputs or (spread and len(inputs) > 1):
        raise InvalidError(f"{function.name}.{what}() takes an iterable of inputs")
    for one in inputs:
        if not isinstance(one, (Iterable, AsyncIterable)):
            raise InvalidError(f"{function.name}.{what}() takes iterables; {one!r} is none")
    return _inputs(inputs, spread)


def _inputs(inputs: tuple[Any, ...], spread: bool) -> Iterator[Any] | AsyncIterator[Any]:
    if spread and isinstance(inputs[0], Iterable):
        return iter(inputs[0])
    if all(isinstance(one, Iterable) for one in inputs):
        return zip(*inputs, strict=False)
    return _zip_async(inputs, spread)


async def _zip_async(inputs: tuple[Any, ...], spread: bool) -> AsyncIterator[Any]:
    iterators = [one.__aiter__() if isinstance(one, AsyncIterable) else iter(one) for one in inputs]
    while True:
        row = []
        for one in iterators:
            try:
                row.append(await one.__anext__() if isinstance(one, AsyncIterator) else next(one))
            except (StopAsyncIteration, StopIteration):
                return
        yield row[0] if spread else tuple(row)


async def _each(source: Iterator[Any] | AsyncIterator[Any]) -> AsyncIterator[Any]:
    if isinstance(source, AsyncIterator):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


class _MapRun(Generic[R]):
    """One running map. `advance` is called in the caller's thread, `_land` on the client's."""

    def __init__(
        self,
        function: Function[Any, Any, Any],
        source: Iterator[Any] | AsyncIterator[Any],
        kwargs: dict[str, Any],
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self._function = function
        self._source = source
        self._is_async = isinstance(source, AsyncIterator)
        self._kwargs = kwargs
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._acting = context.acting.get()  # of where the map was made, not where it is read
        self.total: int | None = None
        self._view: context.MapView | None = None
        self._failed = 0
        self._sent = 0
        self._taken = 0
        self._exhausted = False
        self._running: dict[int, Abandon] = {}
        self._sizes: dict[int, int] = {}  # of those that run and have large inputs
        self._bytes = 0  # the sum of them
        self._landed: deque[tuple[int, Outcome]] = deque()
        self._waiting: dict[int, Outcome] = {}  # landed, and not yet its turn
        self._begun = False
        self._lock = threading.Lock()
        self._wake: Callable[[None], None] | None = None

    def __del__(self) -> None:
        if not self._begun:
            name = self._function.name
            warn_unused(f"{name}.map()", f"a for-loop, list(), or {name}.for_each()")

    def ready(self) -> Iterator[R]:
        """The results that need no wait."""
        while (outcome := self._next_outcome()) is not None:
            self._taken += 1
            yield self._value(outcome)

    async def advance(self) -> R:
        self._begun = True
        while True:
            outcome = self._next_outcome()
            if outcome is not None:
                self._taken += 1
                return self._value(outcome)
            if self._exhausted and self._taken == self._sent:
                self._close_view()
                raise StopAsyncIteration
            if self._exhausted or self._is_full:
                await Pending(self._wait_for_landing)
            else:
                await self._send()

    def _open_view(self) -> None:
        if context.map_view is not None and context.output_blocks and context.show_progress:
            self._view = context.map_view(self._function.name, self.total)

    def _close_view(self) -> None:
        view, self._view = self._view, None
        if view is not None:
            view.close()

    def _next_outcome(self) -> Outcome | None:
        while self._landed:
            index, outcome = self._landed.popleft()
            self._running.pop(index, None)
            self._bytes -= self._sizes.pop(index, 0)
            self._failed += outcome.value is None
            if self._view is not None:
                self._view.update(self._sent - len(self._running), self._failed)
            if not self._ordered:
                return outcome
            self._waiting[index] = outcome
        return self._waiting.pop(self._taken, None)

    def _value(self, outcome: Outcome) -> R:
        if not self._return_exceptions:
            return value_of(outcome, self._function.name)  # type: ignore[no-any-return]
        try:
            return value_of(outcome, self._function.name)  # type: ignore[no-any-return]
        except Exception as error:
            return error  # type: ignore[return-value]  # asked for: exceptions in place of results

    async def _send(self) -> None:
        """Send inputs until a result is there to be taken; each as soon as it is pulled."""
        source, running, kwargs = self._source, self._running, self._kwargs
        pack, client = await self._function._packer()
        while not self._landed and not self._is_full:
            try:
                if self._is_async:
                    args = await source.__anext__()  # type: ignore[union-attr]
                else:
                    args = next(source, _END)  # type: ignore[arg-type]
            except StopAsyncIteration:
                args = _END
            if args is _END:
                self._exhausted = True
                return
            call = pack(tuple(args), kwargs)
            call.user, call.priority = self._acting
            index = self._sent
            self._sent += 1
            if index == 0:
                self._open_view()
            size = call.payload.nbytes
            if size >= LARGE_BYTES:
                self._sizes[index] = size
                self._bytes += size
            running[index] = client.run(call, partial(self._land, index))

    @property
    def _is_full(self) -> bool:
        if self._bytes >= WINDOW_BYTES and len(self._running) >= WINDOW_LEAST:
            return True
        return self._sent - self._taken >= WINDOW

    def _land(self, index: int, outcome: Outcome) -> None:
        self._landed.append((index, outcome))
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is not None:
            wake(None)

    def _wait_for_landing(self, answer: Callable[[Any], None]) -> Abandon:
        with self._lock:
            if not self._landed:
                self._wake = answer
                return self._forget_wake
        answer(None)
        return self._forget_wake

    def _forget_wake(self) -> None:
        with self._lock:
            self._wake = None

    async def close(self) -> None:
        """Cancel what still runs: the loop over the results was left early."""
        self._begun = self._exhausted = True
        self._close_view()
        running, self._running = self._running, {}
        for abandon in running.values():
            abandon()
        self._sent = self._taken


_END: Any = object()
