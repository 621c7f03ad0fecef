"""Where user code is just now: asked from outside, also while C code holds the GIL.

Python's faulthandler writes the stacks of all threads from a signal handler of its own, without the
interpreter's help, into a pipe that the supervisor reads. An asyncio task that waits has no thread,
so a loop that is free tells its tasks' stacks itself.
"""

from __future__ import annotations

import linecache
import os
import re
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, TypedDict

from minimodal.tracebacks import PACKAGE

SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2) + (7 if hasattr(signal, "SIGRTMIN") else 0)
FIRST_WITHIN = 2.0  # seconds for the first words of a process
QUIET = 0.1  # seconds of silence after which it has said all
MAX_DUMP_BYTES = 1 << 20
MAX_TEXT = 200  # characters of a line of source
BELOW = ("executor", "concurrent", "web", "wsgi", "zygote", "supervisor", "main", "batches")

_HEAD = re.compile(r"(Current t|T)hread 0x(\w+)(?: \[(.*)\])? \(most recent call first\):")
_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')

Frame = tuple[str, int, str, str]  # file, line, function, the text of the line


class Thread(TypedDict):
    """One thread, or task: the frames of the user's code in it, the oldest first."""

    name: str
    frames: list[Frame]


def listen(fd: int) -> None:
    """Let this process write its stacks to `fd` when it gets the signal."""
    import faulthandler

    try:
        faulthandler.register(SIGNAL, file=fd, all_threads=True)
    except (AttributeError, OSError, ValueError):
        pass  # a Python without it: the process cannot be asked


class Dumps:
    """Asks one process after the other for its stacks. Nothing here waits: what asks is the
    supervisor, and its heartbeat must not stop for a process that is silent.

    Parameters: `send` signals the process of a slot and says whether it has one; `answer` gets the
    stacks, none where the process said nothing in time.
    """

    def __init__(
        self, send: Callable[[int, int], bool], answer: Callable[[int, list[Thread]], None]
    ) -> None:
        self._send = send
        self._answer = answer
        self.reader, self.writer = os.pipe()
        for end in (self.reader, self.writer):
            os.set_blocking(end, False)  # a process loses what nobody reads: its call goes on
        self._slots: list[int] = []  # the first has been asked
        self._said = b""
        self._until = 0.0  # monotonic time at which it has said all

    def ask(self, slot: int) -> None:
        """The stacks of a slot are wanted; who asks while they come gets the same."""
        if slot not in self._slots:
            self._slots.append(slot)
            if len(self._slots) == 1:
                self._begin()

    def timeout(self) -> float | None:
        """Seconds until `tick` has something to do; None: that only what is read can tell."""
        return max(0.0, self._until - time.monotonic()) if self._slots else None

    def on_readable(self) -> None:
        """Take what is there; it is dropped where it comes too late for the one who asked."""
        data = os.read(self.reader, 65536)
        if self._slots:
            self._said += data
            self._until = time.monotonic() + QUIET

    def tick(self) -> None:
        """Answer, where the process has said all."""
        while self._slots and (
            time.monotonic() >= self._until or len(self._said) >= MAX_DUMP_BYTES
        ):
            slot, said = self._slots.pop(0), self._said
            self._answer(slot, parse(said.decode("utf-8", "backslashreplace")))
            if self._slots:
                self._begin()

    def _begin(self) -> None:
        self._said = b""
        asked = self._send(self._slots[0], SIGNAL)
        self._until = time.monotonic() + (FIRST_WITHIN if asked else 0.0)


def parse(text: str) -> list[Thread]:
    """What faulthandler wrote, with the lines of the sources, without threads of ours alone."""
    threads: list[Thread] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name = head[3] or f"thread {head[2]}"
            threads.append({"name": name, "frames": []})
        elif threads and (frame := _FRAME.match(line)):
            threads[-1]["frames"].append(_described(frame[1], int(frame[2]), frame[3]))
    for thread in threads:
        thread["frames"] = _own(thread["frames"][::-1])
    return [thread for thread in threads if thread["frames"]]


def of_frame(top: FrameType | None) -> list[Frame]:
    """The user's frames below, and with, a frame of this process."""
    frames: list[Frame] = []
    while top is not None:
        code = top.f_code
        frames.append(_described(code.co_filename, top.f_lineno, code.co_name))
        top = top.f_back
    return _own(frames[::-1])


def of_coroutine(waiting: Any) -> list[Frame]:
    """A coroutine or generator that is suspended, and what it waits for."""
    frames: list[Frame] = []
    while waiting is not None:
        frame = next(
            (f for n in ("cr_frame", "gi_frame", "ag_frame") if (f := getattr(waiting, n, None))),
            None,
        )
        if frame is None:
            break
        code = frame.f_code
        frames.append(_described(code.co_filename, frame.f_lineno, code.co_name))
        waiting = next(
            (
                w
                for n in ("cr_await", "gi_yieldfrom", "ag_await")
                if (w := getattr(waiting, n, None))
            ),
            None,
        )
    return _own(frames)


def _described(file: str, line: int, function: str) -> Frame:
    return file, line, function, linecache.getline(file, line).strip()[:MAX_TEXT]


def _own(frames: list[Frame]) -> list[Frame]:
    """Without what called the user's code, and without a thread that only ours runs in."""
    below = tuple(f"{PACKAGE}agent{os.sep}{name}.py" for name in BELOW)
    last = max((at for at, frame in enumerate(frames) if frame[0] in below), default=-1)
    rest = frames[last + 1 :]
    return rest if any(not _is_ours(frame[0]) for frame in rest) else []


def _is_ours(file: str) -> bool:
    return file.startswith((PACKAGE, os.path.dirname(os.__file__) + os.sep)) or file[:1] == "<"
