"""The user's terminal in this process, while a debugger or `interact()` has it.

A pseudo terminal becomes stdin, stdout and stderr, so that line editing, Ctrl-C and whatever reads
keys work as at home; two threads join it to the engine, which joins it to the real one.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from typing import Any

from minimodal import context
from minimodal.errors import Error, InvalidError
from minimodal.face import block
from minimodal.types import EMPTY, Payload

CHUNK = 64 * 1024
GONE = (Error, OSError)  # the engine, or our turn: nobody sees what we show

_hold: Hold | None = None
_pty: tuple[int, int, int] | None = None  # pid of who opened it, master, slave


def interact() -> None:
    """Give the terminal of `minimodal run -i` to this input, until the input ends.

    Afterwards `input()`, a REPL such as `code.interact()` or `IPython.embed()`, and any program that
    is started from here use it. One input has it at a time; another waits. Raises InvalidError
    outside a container, and where the platform was not started with `-i`.
    """
    if context.container is None:
        raise InvalidError(
            "interact() works inside a function's container; here you have a terminal"
        )
    take()


def take() -> None:
    """Wait for the terminal and make it this process's. Nothing to do if it has it."""
    global _hold
    if _hold is None or _hold.pid != os.getpid():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        _hold = Hold(_ask("take").fields)


def give_back() -> None:
    """Everything as before `take`. Nothing to do if it was not taken."""
    global _hold
    hold, _hold = _hold, None
    if hold is not None and hold.pid == os.getpid():
        hold.end()


def input_ended(call_id: str) -> None:
    """Called at the end of each input: what it has taken and not given back is given back."""
    if _hold is not None and _hold.call_id == call_id:
        sys.settrace(None)  # a debugger that was still stepping
        give_back()


class Hold:
    """From `take` to `give_back`."""

    def __init__(self, given: Any) -> None:
        here = context.this_input()
        self.pid = os.getpid()
        self.call_id = here.call_id if here else ""
        self._id = given["id"]
        os.environ.setdefault("TERM", given["kind"])
        self._master, self._slave = _terminal()
        _resize(self._master, given["rows"], given["columns"])
        self._streams = sys.stdin, sys.stdout, sys.stderr
        self._saved = [os.dup(fd) for fd in range(3)]
        for fd in range(3):
            os.dup2(self._slave, fd)
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)
        sys.stdout, sys.stderr = (
            open(fd, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)
            for fd in (1, 2)
        )
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:  # Ctrl-C is for the code that is debugged
            self._interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
        self._stop, self._stopper = os.pipe()
        self._threads = [
            threading.Thread(target=work, name="minimodal-terminal", daemon=True)
            for work in (self._show, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        import termios

        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdin, sys.stdout, sys.stderr = self._streams
        for fd, saved in enumerate(self._saved):
            os.dup2(saved, fd)
            os.close(saved)
        if self._in_main:
            signal.signal(signal.SIGINT, self._interrupt)
        os.close(self._stopper)
        self._threads[0].join()  # all is shown
        try:
            _ask("give", id=self._id)
        except GONE:
            pass  # it was taken from us
        while self._threads[1].is_alive():  # it may be writing what nobody reads
            termios.tcflush(self._slave, termios.TCIFLUSH)
            self._threads[1].join(0.05)
        os.close(self._stop)
        termios.tcflush(self._slave, termios.TCIFLUSH)

    def _show(self) -> None:
        stopping = False
        while True:
            wanted = [self._master] if stopping else [self._master, self._stop]
            ready = select.select(wanted, [], [], 0 if stopping else None)[0]
            if self._master in ready:
                data = os.read(self._master, CHUNK)
                try:
                    _ask("write", Payload(data), id=self._id)
                except GONE:
                    continue  # read on, or the code would wait for ever to be rid of its words
            elif stopping:
                return
            stopping = stopping or self._stop in ready

    def _read(self) -> None:
        while True:
            try:
                reply = _ask("read", id=self._id)
            except GONE:
                return
            if reply.fields["ended"]:
                return
            if reply.fields["size"]:
                _resize(self._master, *reply.fields["size"])
            data = bytes(reply.payload.data)
            while data:
                data = data[os.write(self._master, data) :]


def _ask(op: str, payload: Payload = EMPTY, **fields: Any) -> Any:
    async def ask() -> Any:
        return await context.ask(f"terminal.{op}", payload, **fields)

    return block(ask())


def _terminal() -> tuple[int, int]:
    """This process's pseudo terminal. It stays: closing one hangs up on all that it belongs to."""
    import fcntl
    import termios

    global _pty
    if _pty is None or _pty[0] != os.getpid():
        master, slave = os.openpty()
        try:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        except OSError:
            pass  # a session's leader already: then Ctrl-C is a character like any other
        _pty = os.getpid(), master, slave
    return _pty[1], _pty[2]


def _resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
