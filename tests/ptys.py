"""The real program on a real terminal, and a person who types and reads there."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl

from tests.cli.conftest import environment

WITHIN = 60.0  # seconds for what is expected


class Person:
    """Sits at the terminal of one program. `seen` is all that it has shown."""

    def __init__(self, child: int, terminal: int) -> None:
        self._child = child
        self._terminal = terminal
        self.seen = b""
        self._read = 0  # of what was seen, how much was expected already
        self.code: int | None = None

    def types(self, keys: bytes) -> None:
        os.write(self._terminal, keys)

    def resizes(self, rows: int, columns: int) -> None:
        ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expects(self, *wanted: bytes) -> bytes:
        """Read on until one of `wanted` has come; gives all up to its end."""
        deadline = time.monotonic() + WITHIN
        while True:
            new = self.seen[self._read :]
            found = [new.index(each) + len(each) for each in wanted if each in new]
            if found:
                self._read += min(found)
                return new[: min(found)]
            left = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._terminal], [], [], left)
            assert ready, f"{wanted!r} did not come in {self.seen!r}"
            try:
                data = os.read(self._terminal, 65536)
            except OSError:  # EIO: the program has ended
                data = b""
            assert data, f"it ended without {wanted!r}: {self.seen!r}"
            self.seen += data

    def answers(self, prompt: bytes, keys: bytes) -> bytes:
        """Type when the prompt has come, not before; gives what it expected."""
        shown = self.expects(prompt)
        self.types(keys)
        return shown

    def waits(self) -> int:
        """The exit code, once all that it shows is read."""
        while True:
            try:
                data = os.read(self._terminal, 65536)
            except OSError:
                break
            if not data:
                break
            self.seen += data
        self.code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
        return self.code


@contextmanager
def program(*arguments: str, **environ: str) -> Iterator[Person]:
    """`minimodal` with these arguments, 33 rows and 99 columns; it is gone after the block."""
    words = [sys.executable, "-m", "minimodal", *arguments]
    child, terminal = pty.fork()
    if child == 0:
        os.execve(words[0], words, environment({"TERM": "xterm", **environ}))
    person = Person(child, terminal)
    person.resizes(33, 99)
    try:
        yield person
    finally:
        if person.code is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(terminal)
