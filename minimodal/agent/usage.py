"""What the processes of this container use: read from /proc, where there is one."""

from __future__ import annotations

import os


def usage() -> str:
    """Seconds of cpu time and resident bytes of this process and all below it; "" if unknown."""
    try:
        ticks, pages = 0, 0
        pending, seen = [str(os.getpid())], set()
        while pending:
            pid = pending.pop()
            if pid in seen:
                continue
            seen.add(pid)
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
                with open(f"/proc/{pid}/task/{pid}/children") as file:
                    pending += file.read().split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            # utime, stime, and those of children that have ended; resident pages
            ticks += sum(map(int, fields[11:15]))
            pages += int(fields[21])
        return f"{ticks / os.sysconf('SC_CLK_TCK'):.2f} {pages * os.sysconf('SC_PAGE_SIZE')}"
    except (OSError, ValueError, IndexError):
        return ""
