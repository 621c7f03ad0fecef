"""A script, run by itself: becomes root of a user namespace, then runs a command there.

    python -I -S enter_build.py <descriptor of the namespace> <command> [argument …]

bwrap enters a namespace that it is given, but keeps its uid: the host's root. Standard library only;
imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000


def main(fd: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
    os.close(fd)
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")  # of this namespace: a step can make none inside it
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
