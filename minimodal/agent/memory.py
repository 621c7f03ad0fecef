"""Whether the kernel killed a process of this container over its memory limit.

Read from inside, where a container sees its own cgroup (Docker). Elsewhere the backend counts.
"""

from __future__ import annotations

_COUNTERS = (
    "/sys/fs/cgroup/memory/memory.oom_control",  # version 1
    "/sys/fs/cgroup/memory.events",  # version 2
)


class OomKills:
    """Notices a rise since it was asked last."""

    def __init__(self) -> None:
        self._known = _count()

    def rose(self) -> bool:
        before, self._known = self._known, _count()
        return self._known > before


def _count() -> int:
    for path in _COUNTERS:
        try:
            with open(path) as file:
                for line in file:
                    name, _, number = line.partition(" ")
                    if name == "oom_kill":
                        return int(number)
        except (OSError, ValueError):
            pass  # another version of cgroups, or no view of them at all
    return 0
