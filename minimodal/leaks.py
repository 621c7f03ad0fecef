"""What a test may leave behind in this process: descendants, engine threads, open files.

Owns the comparison before and after; it must not know pytest. Containers and calls are the engine's to
tell, see `pytest_plugin`.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

PATIENCE = 3.0  # seconds for what is on its way out: a process being reaped, a thread being joined
THREADS = "minimodal"  # our threads' names start with it


class Leak(NamedTuple):
    """One thing left behind. `kind`: calls, containers, processes, threads, files."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


class Belongings(NamedTuple):
    """What this process has at one moment."""

    leaks: frozenset[Leak]

    @classmethod
    def now(cls) -> Belongings:
        found = [Leak("processes", each) for each in children()]
        found += [
            Leak("threads", f"{thread.name} ({thread.ident})")
            for thread in threading.enumerate()
            if thread.name.startswith(THREADS)
        ]
        return cls(frozenset([*found, *(Leak("files", each) for each in open_files())]))

    def left_behind(self) -> list[Leak]:
        """What is there now and was not before, after waiting for it to go."""
        return patiently(lambda: Belongings.now().leaks - self.leaks)


def patiently(find: Callable[[], frozenset[Leak]]) -> list[Leak]:
    """What `find` still finds when patience is over; nothing as soon as it finds nothing."""
    deadline = time.monotonic() + PATIENCE
    left = find()
    if left:
        gc.collect()  # a file that only a cycle of garbage holds open is no leak
        left = find()
    while left and time.monotonic() < deadline:
        time.sleep(0.02)  # nobody tells us when a foreign process ends
        left = find()
    return sorted(left, key=str)


def open_files() -> list[str]:
    """This process's file descriptors with what they are; nothing where the system can't tell."""
    found = []
    try:
        descriptors = os.listdir("/proc/self/fd")
    except OSError:
        return []
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/self/fd/{descriptor}")
        except OSError:
            continue  # the one that listed the directory
        if not target.startswith("/dev/"):
            found.append(f"{descriptor} {target}")
    return found


def children(of: int = 0) -> list[str]:
    """The living descendants of this process, or of process `of`, as `pid name`; no zombies.

    `os.kill(pid, 0)` succeeds on a zombie, and not every PID 1 reaps, so the state is read. Only the
    kernel's lists of children are followed: reading all of /proc costs 50 ms for each test.
    """
    found = []
    waiting = [of or os.getpid()]
    while waiting:
        for pid in _children_of(waiting.pop()):
            waiting.append(pid)
            try:
                name, _, rest = _read(f"/proc/{pid}/stat").rpartition(")")
            except OSError:
                continue  # it ended while we looked
            if rest.split()[0] not in "ZX":
                found.append(f"{pid} {name.partition('(')[2]}")
    return found


def _children_of(pid: int) -> list[int]:
    tasks = f"/proc/{pid}/task"
    try:
        return [
            int(child)
            for task in os.listdir(tasks)
            for child in _read(f"{tasks}/{task}/children").split()
        ]
    except OSError:
        return []  # it ended while we looked, or this system has no such lists


def _read(path: str) -> str:
    """A file of /proc. Without a file object: a process has hundreds, and each test asks twice."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(descriptor, 65536):
            parts.append(part)
        return b"".join(parts).decode(errors="backslashreplace")
    finally:
        os.close(descriptor)
