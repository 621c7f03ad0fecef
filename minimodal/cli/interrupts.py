"""Ctrl-C and SIGTERM: the first stops gracefully by unwinding the main thread, the second at once.

After the second nothing of ours runs any more. That is safe: containers end by themselves when the
engine's end of their connection closes, and the next engine clears what a dead one left.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any


class Interrupts:
    """Signal handlers for the length of a block; nothing outside the main thread."""

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}
        self._count = 0

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._set(signal.SIGINT, self._interrupt)
            self._set(signal.SIGTERM, self._end)
            if hasattr(signal, "SIGHUP"):
                self._set(signal.SIGHUP, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _set(self, number: int, handler: Any) -> None:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            self._previous[number] = signal.signal(number, handler)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._again(130)
        _say("\nstopping (again to force)\n")
        raise KeyboardInterrupt

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._again(128 + number)
        raise SystemExit(128 + number)

    def _again(self, code: int) -> None:
        self._count += 1
        if self._count > 1:
            if sys.stderr.isatty():
                _say("\x1b[?25h")  # a live display may have hidden the cursor
            os._exit(code)


def _say(text: str) -> None:
    # Not print: the handler may have interrupted a write to the same buffer.
    try:
        os.write(2, text.encode())
    except OSError:
        return
