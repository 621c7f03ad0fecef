"""The executor for async functions, several inputs at once, and batches: one asyncio loop.

Async inputs are tasks of the loop, sync ones run in threads. The socket stays blocking for sending
(the engine always reads) and is read without waiting when the loop says that it is readable. A
thread cannot be stopped: an input that runs in one and is cancelled gets no answer before its end,
and the engine kills the process when that takes too long.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from minimodal import context, pickling
from minimodal.errors import InputCancellation, InvalidError
from minimodal.kinds import is_async
from minimodal.types import Payload
from minimodal.wire import Frame, Kind

from . import logs, stacks, terminal
from .batches import Batch, results_of
from .conversation import Conversation
from .executor import Credits, Input, farewell, report_failure, result_of, seconds_since
from .link import Link
from .slot_words import INTERRUPT, SlotWords
from .target import Start, Target
from .zygote import failed

if TYPE_CHECKING:
    from .web import WebApps

STOP_PATIENCE = 1.0  # seconds that cancelled inputs have before @exit runs


class Work:
    """What one task works on: an input, or the members of a batch."""

    def __init__(self, inputs: list[Input]) -> None:
        self.inputs = inputs
        self.cancelled: set[int] = set()
        self.in_thread = False
        self.thread = 0  # the one that it runs in, if it does
        self.entered = False
        self.task: asyncio.Task[None]
        # One for the whole input: a generator's variables must last from item to item.
        self.context = contextvars.copy_context()
        self.context.run(context.current_input.set, inputs[0].context)

    @property
    def is_cancelled(self) -> bool:
        return len(self.cancelled) == len(self.inputs)

    def cancel(self, seq: int) -> None:
        """The others of a batch want their results: only the last one's cancel ends the work."""
        self.cancelled.add(seq)
        if self.is_cancelled and not self.in_thread:
            self.task.cancel()


class ConcurrentExecutor:
    """Up to `max_inputs` inputs, or batches of them, at once."""

    def __init__(self, link: Link, words: SlotWords, start: Start, target: Target) -> None:
        self._link = link
        self._target = target
        self._words = words
        self._works: dict[int, Work] = {}  # by seq of each input
        self._credits: dict[int, tuple[Credits, asyncio.Event]] = {}
        self._threads = ThreadPoolExecutor(start.max_inputs, "minimodal-input")
        self._gathered: list[Input] = []  # members of a batch whose frames are arriving
        self._missing = 0  # how many are still to come
        self._conversations: dict[int, Conversation] = {}
        self._web: WebApps | None = None
        if start.fields.get("web"):
            from .web import WebApps

            self._web = WebApps(start, target, self._threads)
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
            if self._web is not None:
                await self._web.start()
        except BaseException as error:
            return report_failure(self._link, error)
        terminal.input_ended("")
        logs.flush()
        self._link.send(Kind.READY)
        loop.add_reader(self._link.sock.fileno(), self._on_readable)
        self._on_readable()  # frames that came together with an earlier read
        await self._done.wait()
        tasks = {work.task for work in self._works.values()}
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_PATIENCE)
        loop.remove_reader(self._link.sock.fileno())
        if self._web is not None:
            await self._web.stop()
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
            asyncio.get_running_loop().remove_reader(self._link.sock.fileno())
            self._done.set()

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.CALL:
                self._on_call(Input(frame))
            case Kind.CANCEL:
                self._cancel(frame.seq)
            case Kind.INPUT if frame.seq in self._conversations:
                self._conversations[frame.seq].feed(frame.payload)
            case Kind.CREDIT if frame.seq in self._conversations:
                self._conversations[frame.seq].credited(int(frame.meta))
            case Kind.CREDIT if frame.seq in self._credits:
                budget, more = self._credits[frame.seq]
                budget.taken(int(frame.meta))
                more.set()
            case Kind.STACK:
                self._link.send(Kind.STACK, frame.seq, json.dumps(self._stack_of(frame.seq)))
            case Kind.STOP:
                self._done.set()
            case _:
                pass

    def _stack_of(self, seq: int) -> list[stacks.Thread]:
        work = self._works.get(seq)
        if work is None:
            return []
        if work.in_thread:
            frames = stacks.of_frame(sys._current_frames().get(work.thread))
        else:
            frames = stacks.of_coroutine(work.task.get_coro())
        return [{"name": "thread" if work.in_thread else "task", "frames": frames}]

    def _on_call(self, one: Input) -> None:
        """Start a task for an input, or for a batch when its last member is here."""
        if one.web and self._web is not None and self._is_web(one):
            # Made here, before its task runs: its input may follow in the next frame.
            state = self._web.state(one.method)
            self._conversations[one.seq] = Conversation(self._link, one, state)
        self._missing = (self._missing or one.batch) - 1
        self._gathered.append(one)
        if self._missing:
            return
        work, self._gathered = Work(self._gathered), []
        run = self._batch(work) if self._target.is_batched else self._single(work)
        # The loop is this process's own and ends with it; a work is ended by its answers.
        # A task begins with a copy of the context that it is made in.
        work.task = work.context.run(asyncio.get_running_loop().create_task, run)
        self._works.update(dict.fromkeys((each.seq for each in work.inputs), work))
        work.task.add_done_callback(lambda _: self._forget(work))

    def _forget(self, work: Work) -> None:
        for one in work.inputs:
            terminal.input_ended(one.call_id)
            self._works.pop(one.seq, None)
            self._conversations.pop(one.seq, None)
            context.calls_on_loop.discard(one.call_id)
            if not work.entered:  # a task that is cancelled before its first step never takes it
                self._fail(one, InputCancellation("this input was cancelled"))

    def _on_interrupt(self) -> None:
        self._cancel(self._words.get(INTERRUPT))

    def _cancel(self, seq: int) -> None:
        work = self._works.get(seq)
        if work is not None:
            work.cancel(seq)

    def _begin(self, one: Input) -> bool:
        """False for an input that was recalled, because somebody blocked the loop, before this."""
        if self._words.begin(one.seq):
            context.calls_on_loop.add(one.call_id)
            return True
        self._link.send(Kind.RETURNED, one.seq)
        return False

    # --- one input ---------------------------------------------------------------------------------

    async def _single(self, work: Work) -> None:
        one = work.inputs[0]
        work.entered = True
        if not self._begin(one):
            return
        started = time.perf_counter()
        try:
            if one.web or self._is_web(one):
                await self._serve(one)
                self._web_answer(one, started)
                return
            args, kwargs = one.arguments()
            function = self._target.callable(one.method)
            if one.stream:
                await self._stream(work, function, args, kwargs)
                value = None
            else:
                value = await self._call(work, function, *args, **kwargs)
            payload = result_of(value, getattr(function, "__qualname__", "the function"))
        except asyncio.CancelledError:
            self._fail(one, InputCancellation("this input was cancelled"))
        except BaseException as error:
            self._fail(one, error)
        else:
            self._answer(one, started, payload)

    async def _call(
        self, work: Work, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if is_async(function):
            return await function(*args, **kwargs)
        return await self._in_thread(work, function, *args, **kwargs)

    def _answer(self, one: Input, started: float, payload: Payload) -> None:
        logs.flush()
        self._link.send(Kind.RESULT, one.seq, seconds_since(started), payload)

    def _web_answer(self, one: Input, started: float) -> None:
        """The client has its response already: this can wait for the answers of other requests."""
        logs.flush()
        if self._link.hold(Kind.RESULT, one.seq, seconds_since(started)):
            asyncio.get_running_loop().call_soon(self._link.flush)

    def _is_web(self, one: Input) -> bool:
        return self._web is not None and one.method in self._web.endpoints

    async def _serve(self, one: Input) -> None:
        conversation = self._conversations.get(one.seq)
        if conversation is None or self._web is None:
            raise InvalidError(
                "this is a web endpoint, and it is called by HTTP"
                if not one.web
                else "this is no web endpoint"
            )
        try:
            await self._web.serve(one.method, conversation)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # The client gets no traceback, so it goes where the developer looks.
            frames = error.__traceback__
            own = frames.tb_next.tb_next if frames and frames.tb_next else frames
            traceback.print_exception(type(error), error, own)
            raise

    def _fail(self, one: Input, error: BaseException) -> None:
        logs.flush()
        self._link.send(Kind.ERROR, one.seq, *failed(error))

    async def _in_thread(
        self, work: Work, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        loop = asyncio.get_running_loop()

        def work_in_thread() -> Any:
            work.thread = threading.get_ident()
            return work.context.run(function, *args, **kwargs)

        work.in_thread = True
        try:
            value = await loop.run_in_executor(self._threads, work_in_thread)
        finally:
            work.in_thread = False
        if work.is_cancelled:
            raise InputCancellation("this input was cancelled")
        return value

    # --- a batch -----------------------------------------------------------------------------------

    async def _batch(self, work: Work) -> None:
        work.entered = True
        started = time.perf_counter()
        function = self._target.callable(work.inputs[0].method)
        batch = Batch(function)
        for one in filter(self._begin, work.inputs):
            try:
                batch.add(one, *one.arguments())
            except BaseException as error:  # its own fault: the others are worked on
                self._fail(one, error)
        if not batch.members:
            return
        try:
            args, kwargs = batch.arguments()
            value = await self._call(work, function, *args, **kwargs)
            results = results_of(value, batch)
        except asyncio.CancelledError:
            self._fail_all(batch, InputCancellation("this batch was cancelled"))
        except BaseException as error:
            self._fail_all(batch, error)
        else:
            for one, result in zip(batch.members, results, strict=True):
                try:
                    payload = result_of(result, batch.name)
                except BaseException as error:
                    self._fail(one, error)
                else:
                    self._answer(one, started, payload)

    def _fail_all(self, batch: Batch, error: BaseException) -> None:
        for one in batch.members:
            self._fail(one, error)

    # --- a generator -------------------------------------------------------------------------------

    async def _stream(
        self, work: Work, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> None:
        one = work.inputs[0]
        budget, more = self._credits[one.seq] = (Credits(), asyncio.Event())
        items = self._items(work, function, args, kwargs)
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
            await items.aclose()

    async def _items(
        self, work: Work, function: Callable[..., Any], args: Any, kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        made = work.context.run(function, *args, **kwargs)
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
            while (item := await self._in_thread(work, next, iterator, _END)) is not _END:
                yield item
        finally:
            if hasattr(iterator, "close"):
                work.cancelled.clear()  # closing it is not cancelled, whatever came before
                await self._in_thread(work, iterator.close)


_END: Any = object()


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
