"""One slot's process: takes CALL frames, runs user code, answers.

Plain functions run in the main thread with a blocking socket: no loop and no thread hop on the way.
Async functions and functions with several inputs at once run under an asyncio loop (concurrent.py).
"""

from __future__ import annotations

import contextvars
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from mmap import mmap
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any

from minimodal import context, pickling
from minimodal.errors import InputCancellation, InvalidError
from minimodal.types import Payload
from minimodal.wire import Frame, Kind

from . import logs, terminal
from .link import Link, connect
from .slot_words import CUT, INTERRUPT, SlotWords
from .target import Start, Target
from .zygote import failed

CREDIT_ITEMS = 256
CREDIT_BYTES = 16 << 20


def execute(path: str, slot: int, start: Start, target: Target, shared: mmap) -> int:
    """Run the slot until the engine says STOP or goes away. The exit code of the process."""
    link = connect(path)
    link.send(Kind.HELLO, meta=json.dumps({"role": "executor", "slot": slot, "pid": os.getpid()}))
    logs.capture(link)
    words = SlotWords(shared, slot)
    try:
        if runs_on_loop(start, target):
            from .concurrent import ConcurrentExecutor

            return ConcurrentExecutor(link, words, start, target).run()
        return SerialExecutor(link, words, target).run()
    except OSError:
        return CUT  # what user code raises never gets here, so it is the link or the loop


def runs_on_loop(start: Start, target: Target) -> bool:
    """Whether inputs are worked on under an asyncio loop."""
    many = start.max_inputs > 1 or target.is_batched
    return bool(target.wants_loop or many or start.fields.get("web"))


class Input:
    """A CALL frame, taken apart."""

    __slots__ = ("batch", "call_id", "depth", "method", "payload", "seq", "stream", "web")

    def __init__(self, frame: Frame) -> None:
        self.seq = frame.seq
        self.call_id, self.method, depth, stream, batch = frame.meta.split("\0")
        self.batch = int(batch)  # members of its batch; 1 where it is none
        self.depth = int(depth)
        self.stream = stream == "1"
        self.web = stream == "w"
        self.payload = frame.payload

    @property
    def context(self) -> context.InputContext:
        return context.InputContext(self.call_id, "in-" + self.call_id[3:], self.depth)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: tuple[tuple[Any, ...], dict[str, Any]] = pickling.loads(self.payload, "an argument")
        return args


def result_of(value: Any, what: str) -> Payload:
    if isinstance(value, CoroutineType):
        value.close()
        raise InvalidError(f"{what} returned a coroutine: declare it with `async def`")
    if isinstance(value, (GeneratorType, AsyncGeneratorType)):
        raise InvalidError(f"{what} is a generator: use .remote_gen()")
    return pickling.dumps(value, f"the result of {what}")


def seconds_since(started: float) -> str:
    """Meta of a RESULT: what the input took here, without its way to us and back."""
    return f"{time.perf_counter() - started:.6f}"


class Credits:
    """How many items a generator may yield before the consumer has taken earlier ones."""

    def __init__(self, items: int = CREDIT_ITEMS, nbytes: int = CREDIT_BYTES) -> None:
        self._limits = items, nbytes
        self._sizes: list[int] = []
        self._bytes = 0

    def sent(self, nbytes: int) -> None:
        self._sizes.append(nbytes)
        self._bytes += nbytes

    def taken(self, count: int) -> None:
        self._bytes -= sum(self._sizes[:count])
        del self._sizes[:count]

    @property
    def exhausted(self) -> bool:
        items, nbytes = self._limits
        return len(self._sizes) >= items or self._bytes >= nbytes


def report_failure(link: Link, error: BaseException) -> int:
    """Say why @enter failed. The engine ends the container then; until it does we stay.

    The end of this process is reported on another connection and could overtake these words.
    """
    terminal.input_ended("")
    logs.flush()
    link.send(Kind.FAILED, 0, *failed(error))
    while (frame := link.receive()) is not None and frame.kind is not Kind.STOP:
        pass
    return 1


def farewell() -> int:
    """The last step of an executor in good order, after @exit. What @exit wrote is complete here:
    this is the place to commit volumes."""
    logs.flush()
    return 0


class SerialExecutor:
    """One input at a time, in the main thread."""

    def __init__(self, link: Link, words: SlotWords, target: Target) -> None:
        self._link = link
        self._target = target
        self._words = words
        self._running = 0  # seq of the input whose user code runs now; 0: none

    def run(self) -> int:
        signal.signal(signal.SIGUSR1, self._on_interrupt)
        try:
            for enter in self._target.enter():
                enter()
        except BaseException as error:
            return report_failure(self._link, error)
        terminal.input_ended("")
        logs.flush()
        self._link.send(Kind.READY)
        while True:
            frame = self._link.receive()
            if frame is None:
                return 0
            if frame.kind is Kind.CALL:
                if self._words.begin(frame.seq):
                    # What an input sets in context variables must not be seen by the next one.
                    contextvars.copy_context().run(self._work, Input(frame))
                else:
                    self._link.send(Kind.RETURNED, frame.seq)
            elif frame.kind is Kind.STOP:
                return self._leave()
            # CREDIT and CANCEL of an input that has ended meanwhile are late: nothing to do.

    def _leave(self) -> int:
        for leave in self._target.leave():
            try:
                leave()
            except BaseException:
                traceback.print_exc()
        return farewell()

    def _on_interrupt(self, *_: Any) -> None:
        """The signal may come late: it counts only for the input that it was sent for."""
        if self._running and self._words.get(INTERRUPT) == self._running:
            self._running = 0
            raise InputCancellation("this input was cancelled")

    def _work(self, one: Input) -> None:
        context.lone_input = here = one.context
        context.current_input.set(here)
        try:
            started = time.perf_counter()
            args, kwargs = one.arguments()
            function = self._target.callable(one.method)
            try:
                self._running = one.seq
                value = function(*args, **kwargs)
                if one.stream:
                    self._stream(one, value, function)
                    value = None
            finally:
                self._running = 0
                terminal.input_ended(one.call_id)
            payload = result_of(value, self._name(function))
        except BaseException as error:
            logs.flush()
            self._fail(one, error)
        else:
            logs.flush()
            self._link.send(Kind.RESULT, one.seq, seconds_since(started), payload)
        finally:
            context.lone_input = None

    def _fail(self, one: Input, error: BaseException) -> None:
        self._link.send(Kind.ERROR, one.seq, *failed(error))
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)

    def _stream(self, one: Input, items: Any, function: Callable[..., Any]) -> None:
        if not isinstance(items, Iterator):
            items = iter(items)
        budget = Credits()
        for item in items:
            payload = pickling.dumps(item, f"an item of {self._name(function)}")
            self._link.send(Kind.YIELD, one.seq, "", payload)
            budget.sent(payload.nbytes)
            if not self._wait_for_credit(one, budget):
                close = getattr(items, "close", None)
                if close is not None:
                    close()
                raise InputCancellation("the consumer stopped reading")

    def _wait_for_credit(self, one: Input, budget: Credits) -> bool:
        """False when the consumer has gone. Frames for later inputs are kept in their order."""
        later: list[Frame] = []
        try:
            while True:
                frame = self._link.receive() if budget.exhausted else self._link.receive_nowait()
                if frame is None:
                    if budget.exhausted:
                        raise EOFError
                    return True
                if frame.seq != one.seq or frame.kind not in (Kind.CREDIT, Kind.CANCEL):
                    later.append(frame)
                elif frame.kind is Kind.CANCEL:
                    return False
                else:
                    budget.taken(int(frame.meta))
        finally:
            self._link.put_back(later)

    @staticmethod
    def _name(function: Callable[..., Any]) -> str:
        return getattr(function, "__qualname__", repr(function))
