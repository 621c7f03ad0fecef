"""The executor for async functions and for several inputs at once: one asyncio loop.

Async inputs are tasks of the loop, sync ones run in threads. The socket stays blocking for sending
(the engine always reads) and is read without waiting when the loop says that it is readable.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import signal
import time
import traceback
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minimodal import context, pickling
from minimodal.errors import InputCancellation
from minimodal.wire import Frame, Kind

from . import logs
from .executor import Credits, Input, farewell, report_failure, result_of, seconds_since
from .link import Link
from .slot_words import INTERRUPT, SlotWords
from .target import Start, Target, is_async
from .zygote import failed


class ConcurrentExecutor:
    """Up to `max_inputs` inputs at once."""

    def __init__(self, link: Link, words: SlotWords, start: Start, target: Target) -> None:
        self._link = link
        self._target = target
        self._words = words
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._credits: dict[int, tuple[Credits, asyncio.Event]] = {}
        self._threads = ThreadPoolExecutor(start.max_inputs, "minimodal-input")
        self._done: asyncio.Event

    def run(self) -> int:
        return asyncio.run(self._main())

    async def _main(self) -> int:
        loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, self._on_interrupt)
        try:
            for enter in self._target.enter():
                await _maybe(enter())
        except BaseException as error:
            return report_failure(self._link, error)
        logs.flush()
        self._link.send(Kind.READY)
        loop.add_reader(self._link.sock.fileno(), self._on_readable)
        self._on_readable()  # frames that came together with an earlier read
        await self._done.wait()
        loop.remove_reader(self._link.sock.fileno())
        for leave in self._target.leave():
            try:
                await _maybe(leave())
            except BaseException:
                traceback.print_exc()
        return farewell()

    def _on_readable(self) -> None:
        try:
            while (frame := self._link.receive_nowait()) is not None:
                self._on_frame(frame)
        except EOFError:
            self._done.set()

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CALL:
                one = Input(frame)
                # The loop is this process's own and ends with it; an input is ended by its answer.
                task = asyncio.get_running_loop().create_task(self._work(one))
                self._tasks[one.seq] = task
                task.add_done_callback(lambda _: self._tasks.pop(one.seq, None))
            case Kind.CANCEL:
                self._cancel(frame.seq)
            case Kind.CREDIT if frame.seq in self._credits:
                budget, more = self._credits[frame.seq]
                budget.taken(int(frame.meta))
                more.set()
            case Kind.STOP:
                self._done.set()
            case _:
                pass

    def _on_interrupt(self) -> None:
        self._cancel(self._words.get(INTERRUPT))

    def _cancel(self, seq: int) -> None:
        task = self._tasks.get(seq)
        if task is not None:
            task.cancel()

    async def _work(self, one: Input) -> None:
        context.current_input.set(one.context)
        try:
            started = time.perf_counter()
            args, kwargs = one.arguments()
            function = self._target.callable(one.method)
            if one.stream:
                await self._stream(one, function, args, kwargs)
                value = None
            elif is_async(function):
                value = await function(*args, **kwargs)
            else:
                value = await self._in_thread(function, *args, **kwargs)
            payload = result_of(value, getattr(function, "__qualname__", "the function"))
        except asyncio.CancelledError:
            self._fail(one, InputCancellation("this input was cancelled"))
        except BaseException as error:
            self._fail(one, error)
        else:
            logs.flush()
            self._link.send(Kind.RESULT, one.seq, seconds_since(started), payload)

    def _fail(self, one: Input, error: BaseException) -> None:
        logs.flush()
        self._link.send(Kind.ERROR, one.seq, *failed(error))

    async def _in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        run = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: run(function, *args, **kwargs))

    async def _stream(
        self, one: Input, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        budget, more = self._credits[one.seq] = (Credits(), asyncio.Event())
        items = self._items(function, args, kwargs)
        try:
            async for item in items:
                payload = pickling.dumps(item, "an item")
                self._link.send(Kind.YIELD, one.seq, "", payload)
                budget.sent(payload.nbytes)
                while budget.exhausted:
                    more.clear()
                    await more.wait()
        finally:
            del self._credits[one.seq]
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _items(
        self, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> AsyncIterator[Any]:
        made = function(*args, **kwargs)
        if inspect.isasyncgen(made) or hasattr(made, "__aiter__"):
            try:
                async for item in made:
                    yield item
            finally:
                if hasattr(made, "aclose"):
                    await made.aclose()
            return
        iterator = iter(made)
        try:
            while (item := await self._in_thread(next, iterator, _END)) is not _END:
                yield item
        finally:
            if hasattr(iterator, "close"):
                await self._in_thread(iterator.close)


_END: Any = object()


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
