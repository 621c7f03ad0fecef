"""What functions print, shown by a script or notebook that hosts the platform itself.

`minimodal run` has a screen of its own; here lines go to wherever `sys.stdout` and `sys.stderr` point
at that moment: a terminal, pytest's capture, a notebook's cell. A line is written on the engine's
loop if that cannot block, so it stands before the result of its call; otherwise by a thread, with a
bound on what waits.
"""

from __future__ import annotations

import queue
import select
import sys
import threading
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, TextIO

from . import context
from .progress import Progress

if TYPE_CHECKING:
    from .engine.events import Event

CellOf = Callable[[str], "Context | None"]
"""The context of the code that made a call, by its id; None where it does not matter."""

MAX_WAITING = 10_000  # lines, behind a reader that is too slow
ATOMIC_BYTES = 4096  # a pipe that is writable takes at least so much


class Printer:
    """Prints log events; inside `enable_output()` also what is built and started."""

    def __init__(self, cell_of: CellOf = lambda call: None) -> None:
        self._cell_of = cell_of
        self._waiting: queue.Queue[tuple[str, str, Context | None] | None]
        self._waiting = queue.Queue(MAX_WAITING)
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._progress = Progress(verbose=True)

    def event(self, event: Event) -> None:
        """Called on the engine's loop; never blocks."""
        if event.kind == "log":
            fields = event.fields
            self._print(fields["stream"], fields["text"], self._cell_of(fields["call"]))
        elif context.output_blocks and context.show_progress:
            for line in self._progress.apply(event.kind, event.name, event.at, event.fields):
                self._print("stderr", line.text, None)

    def close(self) -> None:
        """Wait, for a moment, until all is shown."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(timeout=2.0)

    def _print(self, name: str, text: str, cell: Context | None) -> None:
        if self._waiting.empty() and _takes(_stream(name), len(text) * 4 + 1):
            _write(name, text, cell)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="minimodal-output", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((name, text, cell))
        except queue.Full:
            self._dropped += 1

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            _write(*item)
            if self._dropped and self._waiting.empty():
                dropped, self._dropped = self._dropped, 0
                _write(
                    "stderr", f"[{dropped} lines of output dropped: nobody read them in time]", None
                )


def _stream(name: str) -> TextIO:
    return sys.stderr if name == "stderr" else sys.stdout


def _takes(stream: TextIO, nbytes: int) -> bool:
    """Whether a write of that size cannot block."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return True  # in memory: a capture, a notebook
    if nbytes > ATOMIC_BYTES:
        return False
    return bool(select.select([], [descriptor], [], 0)[1])


def _write(name: str, text: str, cell: Context | None) -> None:
    stream = _stream(name)
    try:
        if cell is None:
            stream.write(text + "\n")
        else:
            # A notebook's stream reads from the context which cell it belongs to. Two threads of
            # ours may be here, and a context can be entered once: hence the copy.
            cell.copy().run(stream.write, text + "\n")
        if not hasattr(stream, "pub_thread"):  # ipykernel sends by itself; its flush() waits
            stream.flush()
    except (OSError, ValueError):
        pass  # the reader is gone, or the stream closed: the calls go on
