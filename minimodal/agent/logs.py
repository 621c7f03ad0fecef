"""What functions print, sent as LOG frames on the executor's own link.

So a print arrives before the result of its call, and with its call's id: each input has a line of
its own in the making, so that inputs that run at once cannot mix their words. What is written to the
descriptors themselves (C code, subprocesses) goes through the supervisor's pipes.
"""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

from minimodal.context import this_input
from minimodal.types import Payload
from minimodal.wire import Kind

from .link import Link

MAX_LOG_BYTES = 1 << 20
MAX_LINE = 64 * 1024  # characters of an unfinished line that are kept back


class _LogText(io.TextIOBase):
    """sys.stdout or sys.stderr: whole lines are sent at once, the rest at the input's end."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, link: Link, name: str, descriptor: int) -> None:
        self._link = link
        self._name = name
        self._descriptor = descriptor
        self._unfinished: dict[str, str] = {}  # by call id
        self._lock = threading.RLock()
        self.buffer = _LogBytes(self)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The real descriptor, for subprocesses that inherit it."""
        return self._descriptor

    def reconfigure(self, **_: Any) -> None:
        """As of TextIOWrapper, which some libraries expect; there is nothing to be changed."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        call = _call_id()
        with self._lock:
            whole = self._unfinished.pop(call, "") + text
            end = len(whole) if len(whole) > MAX_LINE else whole.rfind("\n") + 1
            if end < len(whole):
                self._unfinished[call] = whole[end:]
            if end:
                self.send(call, whole[:end].encode("utf-8", "backslashreplace"))
        return len(text)

    def flush(self) -> None:
        if not self._unfinished:
            return
        call = _call_id()
        with self._lock:
            rest = self._unfinished.pop(call, "")
            if rest:
                self.send(call, rest.encode("utf-8", "backslashreplace"))

    def send(self, call: str, data: bytes) -> None:
        for at in range(0, len(data), MAX_LOG_BYTES):
            part = Payload(data[at : at + MAX_LOG_BYTES])
            self._link.send(Kind.LOG, 0, f"{self._name}\0{call}", part)


class _LogBytes(io.RawIOBase):
    """`sys.stdout.buffer`: bytes are sent as they come."""

    def __init__(self, text: _LogText) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def write(self, data: Any) -> int:
        self._text.flush()
        whole = bytes(data)
        self._text.send(_call_id(), whole)
        return len(whole)


def _call_id() -> str:
    here = this_input()
    return here.call_id if here else ""


def capture(link: Link) -> None:
    """Replace sys.stdout and sys.stderr of this process."""
    sys.stdout = _LogText(link, "stdout", 1)
    sys.stderr = _LogText(link, "stderr", 2)


def flush() -> None:
    """Send what the current input has left unfinished: called at the end of each."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # user code closed or replaced it
