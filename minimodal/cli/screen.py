"""`Screen`: the run as it is seen. Lines of functions and of the platform, and a live tree between.

Events arrive on the engine's loop, which must never wait for a terminal: they go through a queue to
a thread that alone draws. What the user's own code prints meanwhile goes through `_Ordered`, which
first lets the queue empty, so that it appears after the remote output that came before it. Behind a
reader that is too slow the queue is bounded, and what is dropped is counted and said.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from minimodal import context
from minimodal.face import client_threads
from minimodal.progress import QUICK, Line, Progress, shown_seconds

from .terminal import paint, paint_source, wants_motion

if TYPE_CHECKING:
    from minimodal.engine.events import Event
    from minimodal.host import Host

MAX_QUEUED_BYTES = 64 << 20
PATIENCE = 0.5  # seconds that local output waits for remote output that came before it
TICK = 0.1
MARKS = {"done": ("✓ ", "green"), "failed": ("✗ ", "red"), "dim": ("  ", "dim"), "": ("", "")}


class Screen:
    """Shows what happens in its block: `with Screen().of(host) as screen:`."""

    def __init__(self, *, quiet: bool = False, plain: bool = False, as_json: bool = False) -> None:
        self._out, self._err = sys.stdout, sys.stderr
        self._moving = wants_motion(self._err) and not (quiet or plain or as_json)
        self._as_json = as_json
        if as_json:
            from .ndjson import Events

            self.progress: Progress = Events()
        else:
            self.progress = Progress(quiet=quiet, verbose=not self._moving)
        self._queue: queue.SimpleQueue[Event | Line | None] = queue.SimpleQueue()
        self._queued_bytes = 0
        self._dropped = 0
        self._put = self._shown = 0
        self._settled = threading.Condition()
        self._drawing = threading.RLock()
        self._unpaused = threading.Event()
        self._unpaused.set()
        self._live: Any = None
        self._at_line_start = True
        self._before: Any = None
        self._streams: list[Any] = []
        self.running_of: Callable[[str], int] = lambda function: 0
        self.totals: Callable[[], dict[str, Any]] = dict
        self._thread = threading.Thread(target=self._run, name="minimodal-screen", daemon=True)
        self._began = time.monotonic()

    def __enter__(self) -> Screen:
        self._thread.start()
        self._streams = [self._stream("stdout"), self._stream("stderr")]
        sys.stdout, sys.stderr = self._streams
        self._before, context.map_view = context.map_view, self._open_bar
        return self

    def __exit__(self, kind: object, error: BaseException | None, tb: object) -> None:
        context.map_view = self._before
        if self._as_json:
            self._finish(error)
        sys.stdout, sys.stderr = self._out, self._err
        self._unpaused.set()
        self._queue.put(None)
        self._thread.join()

    @contextmanager
    def of(self, host: Host) -> Iterator[Screen]:
        """Start `host` for the block, and show what happens in it."""
        with self:
            host.subscribe(self.event)
            with host:
                yield self

    def event(self, event: Event) -> None:
        """Take an event; called on the engine's loop, never waits."""
        size = len(event.fields.get("text", "")) + 200
        if self._queued_bytes > MAX_QUEUED_BYTES:
            self._dropped += 1
            return
        self._queued_bytes += size
        self._put += 1
        self._queue.put(event)

    def publish(self, kind: str, name: str, at: float, **fields: Any) -> None:
        """An event that is not the engine's: of the script itself, under `--json`."""
        self.show(self.progress.apply(kind, name, at, fields))

    def say(self, text: str, mark: Any = "") -> None:
        """A line of the platform's own, on stderr; nothing where the user asked for quiet."""
        if self._as_json:
            self.publish("notice", "", time.time(), text=text)
        elif not self.progress.quiet:
            self.show([Line("stderr", text, mark=mark)])

    def show(self, lines: list[Line]) -> None:
        """Lines that the platform itself has made, in their turn."""
        for line in lines:
            self._put += 1
            self._queue.put(line)

    def _open_bar(self, function: str, total: int | None) -> Bar:
        bar = Bar(self, function, total)
        if self._moving:
            self._put += 1
            self._queue.put(Line("stderr", "", mark="wake"))
        return bar

    def elapsed(self) -> str:
        return shown_seconds(time.monotonic() - self._began)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing in the block, also nothing that this process prints; all of it comes after."""
        self.settle()
        with self._drawing:
            self._hide()
            self._unpaused.clear()
        try:
            yield
        finally:
            self._unpaused.set()

    def _stream(self, name: str) -> Any:
        if self._as_json:
            from .ndjson import Lines

            return Lines(self, name)
        return _Ordered(self._out if name == "stdout" else self._err, self)

    def _finish(self, error: BaseException | None) -> None:
        """The last event: how the run ended."""
        from .failure import exit_code

        for stream in self._streams:
            stream.close()
        failed = error is not None and exit_code(error) != 0
        text = f"{type(error).__name__}: {error}".rstrip(": ") if failed else None
        code = 0 if error is None else exit_code(error)
        seconds = round(time.monotonic() - self._began, 3)
        fields = {"exit_code": code, "error": text, "seconds": seconds, **self.totals()}
        self.publish("run.finished", "", time.time(), **fields)

    # --- local output --------------------------------------------------------------------------------

    def settle(self) -> None:
        """Wait until what was put before is shown, but not long, and never on a thread of ours."""
        me = threading.get_ident()
        if me == self._thread.ident or me in client_threads or not self._thread.is_alive():
            return
        target = self._put
        if self._shown < target:
            with self._settled:
                self._settled.wait_for(lambda: self._shown >= target, PATIENCE)

    def write(self, stream: TextIO, text: str) -> int:
        with self._turn():
            self._hide()
            count = stream.write(text)
            if text:
                self._at_line_start = text.endswith("\n")
        return count

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Nobody else writes in the block, and output is not paused."""
        while True:
            self._unpaused.wait()
            with self._drawing:
                if self._unpaused.is_set():
                    yield
                    return

    # --- the drawing thread --------------------------------------------------------------------------

    def _run(self) -> None:
        ended = False
        while not ended:
            batch = self._next_batch()
            ended = None in batch
            lines = [line for item in batch if item is not None for line in self._lines(item)]
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                text = f"{dropped} lines are not shown: they came faster than they could be printed"
                lines.append(Line("stderr", text, mark="failed"))
            try:
                with self._turn():
                    self._print(lines)
                    self._hide() if ended else self._draw()
            except BrokenPipeError:  # the reader of a pipe has gone: end as quietly as it did
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with self._settled:
                self._shown += sum(1 for item in batch if item is not None)
                self._settled.notify_all()

    def _next_batch(self) -> list[Event | Line | None]:
        """Wait for something to show, or for the next picture of a live display."""
        batch: list[Event | Line | None] = []
        try:
            batch.append(self._queue.get(timeout=TICK if self._wants_live() else None))
            while len(batch) < 1000:
                batch.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return batch

    def _lines(self, item: Event | Line) -> list[Line]:
        if isinstance(item, Line):
            return [] if item.mark == "wake" else [item]
        self._queued_bytes -= len(item.fields.get("text", "")) + 200
        return self.progress.apply(item.kind, item.name, item.at, item.fields)

    def _print(self, lines: list[Line]) -> None:
        if not lines:
            return
        self._hide()
        for stream, name in ((self._out, "stdout"), (self._err, "stderr")):
            text = "".join(self._spell(line, stream) for line in lines if line.stream == name)
            if text:
                stream.write(text)
                stream.flush()

    def _spell(self, line: Line, stream: TextIO) -> str:
        if line.source:
            return f"{paint_source(line.source, stream)} {line.text}\n"
        sign, style = MARKS[line.mark]
        if not style:
            return f"{line.text}\n"
        whole = line.mark == "dim"
        return f"{paint(sign + (line.text if whole else ''), style, stream)}{'' if whole else line.text}\n"

    # --- the live display ----------------------------------------------------------------------------

    def _wants_live(self) -> bool:
        return self._moving and self.progress.pending_since is not None

    def _draw(self) -> None:
        since = self.progress.pending_since
        if not self._moving or since is None or time.time() - since < QUICK:
            self._hide()
        elif self._at_line_start:  # never into a prompt, nor into a debugger's
            from .tree import open_live, tree_of

            if self._live is None:
                self._live = open_live(self._err)
            for each in self.progress.maps:
                each.running = self.running_of(each.function)
            self._live.update(tree_of(self.progress, time.time()), refresh=True)

    def _hide(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class Bar:
    """A `context.MapView` for the live display, or for plain lines from time to time."""

    def __init__(self, screen: Screen, function: str, total: int | None) -> None:
        self._screen = screen
        self._state = screen.progress.begin_map(function, total, time.time())

    def update(self, done: int, failed: int) -> None:
        now = time.time()
        self._state.count(done, failed, now)
        self._screen.show(self._screen.progress.map_line(self._state, now))

    def close(self) -> None:
        self._screen.show(self._screen.progress.end_map(self._state, time.time()))


class _Ordered:
    """sys.stdout or sys.stderr in the block of a Screen: a text stream that waits its turn."""

    def __init__(self, stream: TextIO, screen: Screen) -> None:
        self._stream = stream
        self._screen = screen

    def write(self, text: str) -> int:
        self._screen.settle()
        return self._screen.write(self._stream, text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __iter__(self) -> Any:
        return iter(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
