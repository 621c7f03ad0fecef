"""Limits for where no cgroup can be made: a shell sets them on itself and becomes the command.

Not `prlimit` from outside: root in a container often lacks the capability for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from minimodal.types import Resources

# -p is dash's letter for the number of processes, -u that of other shells.
_LIMIT = """
[ "$1" = - ] || ulimit -v "$1"
[ "$2" = - ] || ulimit -p "$2" 2>/dev/null || ulimit -u "$2"
shift 2
exec "$@"
"""


def limited(
    command: Sequence[str], resources: Resources, controllers: frozenset[str], *, pids: bool
) -> tuple[str, ...]:
    """The command with limits on what `controllers` of a cgroup do not cover.

    `pids` only where the user id is the container's own: the limit counts all processes of the id.
    """
    memory = number = "-"
    if "memory" not in controllers and resources.memory_limit is not None:
        memory = str(resources.memory_limit << 10)
    if pids and "pids" not in controllers:
        number = str(resources.pids_limit)
    if memory == number == "-":
        return tuple(command)
    return ("/bin/sh", "-c", _LIMIT, "sh", memory, number, *command)
