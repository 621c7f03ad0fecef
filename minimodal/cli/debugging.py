"""`minimodal run -i`: this terminal, as the engine gives it to one container after the other."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from minimodal.engine.terminal import Size

from .failure import UsageError
from .keys import Typing, raw
from .terminal import paint

if TYPE_CHECKING:
    from minimodal.host import Host

    from .screen import Screen

ABORT = b"\x1c"  # Ctrl-\


def require_terminal() -> None:
    """Raise UsageError where there is no terminal to give."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "-i gives your terminal to a debugger in a container, and here is none.",
            hint="run it in a terminal, without a pipe or a redirection",
        )


@contextmanager
def given(host: Host, screen: Screen) -> Iterator[None]:
    """Let the containers of a host that has started have this terminal, for the length of the block."""
    front = _Front(host, screen)
    before = signal.signal(signal.SIGWINCH, front.size_changed)
    host.engine.terminal.front = front
    try:
        yield
    finally:
        host.engine.terminal.front = None
        front.take_back()
        signal.signal(signal.SIGWINCH, before)


class _Front:
    """Implements engine.terminal.Front."""

    def __init__(self, host: Host, screen: Screen) -> None:
        self._host = host
        self._screen = screen
        self._lock = threading.Lock()
        self._stack: ExitStack | None = None  # while it is given
        self._typing: Typing | None = None

    @property
    def kind(self) -> str:
        return os.environ.get("TERM", "xterm-256color")

    def size(self) -> Size:
        found = os.get_terminal_size(0)
        return Size(found.lines, found.columns)

    def give(self, who: str) -> None:
        with self._lock, ExitStack() as stack:
            stack.enter_context(self._screen.paused())
            words = f"--- the terminal is with {who}; Ctrl-\\ ends the run ---"
            self.show(paint(words, "dim", sys.stdout).encode() + b"\n")
            stack.enter_context(raw())
            self._typing = Typing(self._typed, self._resized)
            stack.callback(self._typing.stop)
            self._stack = stack.pop_all()

    def show(self, data: bytes) -> None:
        while data:
            data = data[os.write(1, data) :]

    def take_back(self) -> None:
        with self._lock:
            stack, self._stack, self._typing = self._stack, None, None
            if stack is not None:
                stack.close()

    def size_changed(self, *_: object) -> None:
        typing = self._typing
        if typing is not None:
            typing.size_changed()

    def _typed(self, data: bytes) -> None:
        if ABORT in data or not data:
            self.take_back()
            os.kill(os.getpid(), signal.SIGINT)
        else:
            self._host.loop.call_soon_threadsafe(self._host.engine.terminal.typed, data)

    def _resized(self, rows: int, columns: int) -> None:
        size = Size(rows, columns)
        self._host.loop.call_soon_threadsafe(self._host.engine.terminal.resized, size)
