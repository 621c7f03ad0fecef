"""Which files `minimodal serve` watches, and the thread that does. The only importer of watchfiles.

Precise: the project files that the script imports, and what its images take from this machine. The
directories that hold them are watched, because editors replace files rather than write them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

STEP = 30  # milliseconds without another change after which a burst of changes is over
LOOK = 400  # milliseconds between two looks for what no event told of
DEBOUNCE = 300  # milliseconds that a burst may last


class Watched:
    """The files of one version of a script."""

    def __init__(self, since: float) -> None:
        self.since = since  # wall clock: when they began to be read
        self._told: dict[str, float] = {}
        self._files: set[str] = set()
        self._directories: set[str] = set()
        self.also_new = False  # the last version did not load: a file that it misses may come

    def add(self, paths: list[str]) -> None:
        for path in paths:
            real = os.path.realpath(path)
            if os.path.isdir(real):
                self._directories |= {folder for folder, _, _ in os.walk(real)}
            else:
                self._files.add(real)

    def places(self) -> set[str]:
        """The directories to watch."""
        folders = {os.path.dirname(path) for path in self._files}
        return {each for each in folders | self._directories if os.path.isdir(each)}

    def newer(self) -> list[str]:
        """Files written since they began to be read, each time once: before the watch had begun."""
        found = []
        for path in self._files:
            try:
                written = os.stat(path).st_mtime
            except OSError:
                continue  # being replaced, or gone: what comes in its place is told of
            if written > self.since and self._told.get(path) != written:
                self._told[path] = written
                found.append(path)
        return sorted(found)

    def wants(self, path: str) -> bool:
        real = os.path.realpath(path)
        if real in self._files or (self.also_new and real.endswith(".py")):
            return True
        ours = os.path.dirname(real) in self._directories
        return ours and "__pycache__" not in real and not real.endswith(("~", ".swp", ".tmp"))


class Watcher:
    """Tells of changes from a thread of its own, until it is stopped."""

    def __init__(self, watched: Watched, changed: Callable[[list[str]], None]) -> None:
        self._watched = watched
        self._changed = changed
        self._stop = threading.Event()
        self.places = watched.places()
        self._thread = threading.Thread(target=self._run, name="minimodal-watch", daemon=True)
        self._thread.start()

    def watch(self, watched: Watched) -> None:
        """Other files in the same places."""
        self._watched = watched

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        from watchfiles import watch

        for changes in watch(
            *self.places,
            watch_filter=lambda _, path: self._watched.wants(path),
            stop_event=self._stop,
            step=STEP,
            debounce=DEBOUNCE,
            recursive=False,
            rust_timeout=LOOK,
            yield_on_timeout=True,
        ):
            newer = self._watched.newer()  # also marks what is told of here as told
            if changed := sorted({str(Path(path)) for _, path in changes} | set(newer)):
                self._changed(changed)
