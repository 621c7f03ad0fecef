"""This terminal, handed to something else: raw mode, and what is typed on it moved by a thread."""

from __future__ import annotations

import os
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from minimodal.errors import Error

CHUNK = 64 * 1024


@contextmanager
def raw() -> Iterator[None]:
    """Keys go to the other side as they are pressed, Ctrl-C too."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class Typing:
    """Gives all that is read from stdin to `typed`, b"" at its end, and new sizes to `resized`.

    Both are called on the thread of its own, and end it by raising an Error.
    """

    def __init__(
        self, typed: Callable[[bytes], None], resized: Callable[[int, int], None] | None
    ) -> None:
        self._typed = typed
        self._resized = resized
        self._size: os.terminal_size | None = None  # that was told last
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        self._thread = threading.Thread(target=self._run, name="minimodal-keys", daemon=True)
        self._thread.start()

    def size_changed(self, *_: object) -> None:
        """A handler of SIGWINCH."""
        with suppress(OSError):  # it has enough to read, or has ended
            os.write(self._waker, b"r")

    def stop(self) -> None:
        os.close(self._waker)
        if threading.current_thread() is not self._thread:
            self._thread.join(1)

    def _run(self) -> None:
        try:
            self._move()
        finally:
            os.close(self._wake)

    def _move(self) -> None:
        reading = [0, self._wake]
        with suppress(Error, ValueError):  # the other side is gone: nobody wants what is typed
            while True:
                for fd in select.select(reading, [], [])[0]:
                    data = os.read(fd, CHUNK)
                    if fd == self._wake and not data:
                        return  # stopped
                    self._tell_size()  # first: keys may overtake the signal
                    if fd == 0:
                        self._typed(data)
                        if not data:
                            reading.remove(0)

    def _tell_size(self) -> None:
        if self._resized is None:
            return
        with suppress(OSError):  # hung up
            size = os.get_terminal_size(0)  # not LINES and COLUMNS: those do not follow
            if size != self._size:
                self._size = size
                self._resized(size.lines, size.columns)
