"""What functions print, sent as LOG frames on the executor's own link.

So a print arrives before the result of its call, and with its call's id even where several inputs
run at once. What is written to the descriptors themselves (C code, subprocesses) goes through the
supervisor's pipes.
"""

from __future__ import annotations

import io
import sys
from typing import Any

from minimodal.context import current_input
from minimodal.types import Payload
from minimodal.wire import Kind

from .link import Link

MAX_LOG_BYTES = 1 << 20


class _LogStream(io.RawIOBase):
    def __init__(self, link: Link, name: str, descriptor: int) -> None:
        self._link = link
        self._name = name
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        """The real descriptor, for subprocesses that inherit it."""
        return self._descriptor

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        here = current_input.get()
        meta = f"{self._name}\0{here.call_id if here else ''}"
        for at in range(0, len(view), MAX_LOG_BYTES):
            self._link.send(Kind.LOG, 0, meta, Payload(bytes(view[at : at + MAX_LOG_BYTES])))
        return len(view)


def capture(link: Link) -> None:
    """Replace sys.stdout and sys.stderr of this process."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        raw = _LogStream(link, name, descriptor)
        text = io.TextIOWrapper(
            io.BufferedWriter(raw, 64 * 1024),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        setattr(sys, name, text)


def flush() -> None:
    """Send what is buffered: called at the end of each input."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # user code closed or replaced it
