"""What the processes of this container use: read from /proc, where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable


def usage(proc: str = "/proc") -> str:
    """Seconds of cpu time and resident bytes of this process and all below it; "" if unknown."""
    try:
        ticks, pages = 0, 0
        own = str(os.getpid())
        listed = os.path.exists(f"{proc}/{own}/task/{own}/children")
        children = _listed(proc) if listed else _by_parent(proc)
        pending, seen = [own], set()
        while pending:
            pid = pending.pop()
            if pid in seen:
                continue
            seen.add(pid)
            try:
                fields = _stat(proc, pid)
                pending += children(pid)
            except (FileNotFoundError, ProcessLookupError):
                if pid == own:
                    return ""
                continue  # it has just ended
            # utime, stime, and those of children that have ended; resident pages
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
        return f"{ticks / os.sysconf('SC_CLK_TCK'):.2f} {pages * os.sysconf('SC_PAGE_SIZE')}"
    except (OSError, ValueError, IndexError):
        return ""


def _stat(proc: str, pid: str) -> list[bytes]:
    """From the state on: what stands before may have spaces."""
    with open(f"{proc}/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _listed(proc: str) -> Callable[[str], list[str]]:
    def children(pid: str) -> list[str]:
        """Of all its threads."""
        found: list[str] = []
        for thread in os.listdir(f"{proc}/{pid}/task"):
            with open(f"{proc}/{pid}/task/{thread}/children") as file:
                found += file.read().split()
        return found

    return children


def _by_parent(proc: str) -> Callable[[str], list[str]]:
    """For a kernel that lists no children (CONFIG_PROC_CHILDREN): all processes, by their parents."""
    below: dict[str, list[str]] = {}
    for pid in filter(str.isdigit, os.listdir(proc)):
        try:
            below.setdefault(_stat(proc, pid)[1].decode(), []).append(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return lambda pid: below.get(pid, [])
