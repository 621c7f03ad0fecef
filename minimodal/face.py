"""One `async def`, two faces: `f.remote(x)` blocks, `await f.remote.aio(x)` does not.

A method under `@both` awaits nothing but `Pending`s: operations that a `Client` carries out on a
thread of its own and answers by a callback. So the same coroutine can be driven in two ways, always
in the caller's own thread: `_block` waits for each answer on a lock, `_wait` on an asyncio future.
User values are therefore pickled and unpickled where the caller is, never on the engine's loop.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .errors import BlockingCallInLoop, InvalidError

if TYPE_CHECKING:
    from types import TracebackType

    from .protocols import Abandon

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
S = TypeVar("S")

Answer = Callable[[Any], None]

client_threads: set[int] = set()
"""Threads that run a client's loop. A blocking call there would wait for itself."""

if hasattr(
    os, "register_at_fork"
):  # a child has none of them, and its threads get the same numbers
    os.register_at_fork(after_in_child=client_threads.clear)


class _Stalls(threading.local):
    depth = 0


_stalls = _Stalls()


def stalls_loop() -> bool:
    """Whether the operation that begins now blocks an asyncio loop of its caller's until it is done."""
    return _stalls.depth > 0


def _runs_loop() -> bool:
    asyncio = sys.modules.get("asyncio")  # not imported here: that costs a script 50 ms
    # Another thread may be in the middle of importing it: then no loop runs.
    running = getattr(asyncio, "_get_running_loop", None)
    return running is not None and running() is not None


class Pending(Generic[T]):
    """An operation to be started: `start(answer)` begins it and returns what abandons it.

    `answer` is called once, from any thread, with the result or with an exception to raise.
    `start_blocking` is used instead where the caller's thread has nothing to do but wait.
    """

    __slots__ = ("start", "start_blocking", "timeout")

    def __init__(
        self,
        start: Callable[[Answer], Abandon],
        timeout: float | None = None,
        start_blocking: Callable[[Answer], Abandon] | None = None,
    ) -> None:
        self.start = start
        self.start_blocking = start_blocking or start
        self.timeout = timeout

    def __await__(self) -> Generator[Pending[T], Any, T]:
        result: T = yield self
        return result


class _Waiter:
    """Waits for one answer on a lock: less than a quarter of the cost of a Condition."""

    __slots__ = ("_lock", "value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.value: Any = None

    def answer(self, value: Any) -> None:
        self.value = value
        self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)


def _block_on(pending: Pending[Any]) -> Any:
    if threading.get_ident() in client_threads:
        raise BlockingCallInLoop(
            "a blocking call was made on the engine's own loop, which would wait for itself. "
            "Use the `.aio` form there."
        )
    waiter = _Waiter()
    abandon = pending.start_blocking(waiter.answer)
    try:
        if not waiter.wait(pending.timeout):
            raise TimeoutError
    except BaseException:  # Ctrl-C too: the work must not go on without its caller
        abandon()
        raise
    if isinstance(waiter.value, BaseException):
        raise waiter.value
    return waiter.value


def block(coroutine: Coroutine[Any, Any, R]) -> R:
    """Drive a coroutine of `Pending`s in this thread."""
    value: Any = None
    error: BaseException | None = None
    stalls = _runs_loop()
    _stalls.depth += stalls
    try:
        while True:
            pending = coroutine.send(value) if error is None else coroutine.throw(error)
            value, error = None, None
            if not isinstance(pending, Pending):
                raise InvalidError("an async iterable needs the `.aio` form and `async for`")
            try:
                value = _block_on(pending)
            except BaseException as raised:
                error = raised
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        _stalls.depth -= stalls
        coroutine.close()


async def _answer_of(pending: Pending[Any]) -> Any:
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(value: Any) -> None:
        if not future.done():
            future.set_result(value)

    def answer(value: Any) -> None:
        # The caller's loop may be closed by now: then nobody waits for the answer any more.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, value)

    abandon = pending.start(answer)
    handle = None
    if pending.timeout is not None:
        handle = loop.call_later(pending.timeout, settle, TimeoutError())
    try:
        value = await future
    except BaseException:
        abandon()
        raise
    finally:
        if handle is not None:
            handle.cancel()
    if isinstance(value, BaseException):
        if isinstance(value, TimeoutError):
            abandon()
        raise value
    return value


class _Foreign:
    """What an awaitable of the user's yields to asyncio (an async iterator given to `map.aio`)."""

    def __init__(self, yielded: Any) -> None:
        self._yielded = yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self._yielded)


async def wait(coroutine: Coroutine[Any, Any, R]) -> R:
    """Drive a coroutine of `Pending`s under the running asyncio loop."""
    value: Any = None
    error: BaseException | None = None
    try:
        while True:
            pending = coroutine.send(value) if error is None else coroutine.throw(error)
            value, error = None, None
            try:
                if isinstance(pending, Pending):
                    value = await _answer_of(pending)
                else:
                    value = await _Foreign(pending)
            except BaseException as raised:
                error = raised
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        coroutine.close()


class Both(Generic[P, R]):
    """A bound operation: call it to block, `.aio` to await."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> None:
        self._function = function

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]  # of the operation, for help()
        return getattr(self._function, "func", self._function).__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return block(self._function(*args, **kwargs))

    async def aio(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return await wait(self._function(*args, **kwargs))


class both(Generic[S, P, R]):
    """Descriptor over an `async def` method that awaits only `Pending`s."""

    def __init__(self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # not called itself

    @overload
    def __get__(self, instance: None, owner: type[S]) -> both[S, P, R]: ...

    @overload
    def __get__(self, instance: S, owner: type[S]) -> Both[P, R]: ...

    def __get__(self, instance: S | None, owner: type[S]) -> both[S, P, R] | Both[P, R]:
        if instance is None:
            return self
        return Both(functools.partial(self._function, instance))


def both_function(function: Callable[P, Coroutine[Any, Any, R]]) -> Both[P, R]:
    """`both` for a module-level or static function."""
    return Both(function)


class BothContext(Generic[T]):
    """A block for `with` and for `async with`: a subclass has `_enter` and `_leave`."""

    async def _enter(self) -> T:
        """What the block starts with; its value is what `as` names."""
        raise NotImplementedError

    async def _leave(self, error: BaseException | None) -> None:
        """How the block ends; `error` is what it raised."""
        raise NotImplementedError

    def __enter__(self) -> T:
        return block(self._enter())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        block(self._leave(error))

    async def __aenter__(self) -> T:
        return await wait(self._enter())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await wait(self._leave(error))


def warn_unused(what: str, instead: str) -> None:
    """What was asked for does nothing before somebody iterates over it, and nobody did."""
    words = f"{what} was never iterated, so nothing ran: use {instead}"
    warnings.warn(words, RuntimeWarning, stacklevel=3)


class BothIterator(Generic[T]):
    """An iterable for `for` and for `async for`, over a coroutine that gives the next item.

    `advance()` returns an item or raises StopAsyncIteration. Nothing starts before the first item is
    asked for; leaving the loop early calls `close`. `ready()` gives the items that are there already,
    so that no coroutine is made for each of them.
    """

    def __init__(
        self,
        advance: Callable[[], Coroutine[Any, Any, T]],
        close: Callable[[], Coroutine[Any, Any, None]],
        ready: Callable[[], Iterable[T]] = tuple,
    ) -> None:
        self._advance = advance
        self._close = close
        self._ready = ready

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                yield from self._ready()
                try:
                    item = block(self._advance())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            block(self._close())

    async def __aiter__(self) -> AsyncIterator[T]:
        try:
            while True:
                for item in self._ready():
                    yield item
                try:
                    item = await wait(self._advance())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            await wait(self._close())
