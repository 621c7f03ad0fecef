"""A script, run by itself: becomes root of a new user namespace, then runs a command there.

    python -I -S enter_build.py <uid and gid map of the namespace> <command> [argument …]

For root of the host, whose namespace may know many ids. The process stays the same one, so that it
ends with whoever started it. Standard library only; imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000


def main(id_map: str, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    ready, told = os.pipe()
    mapper = os.fork()
    if mapper == 0:  # it stays outside: only there the map may be written
        os.close(told)
        if os.read(ready, 1):
            for kind in ("uid", "gid"):
                with open(f"/proc/{os.getppid()}/{kind}_map", "w") as file:
                    file.write(id_map)
        os._exit(0)
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"a user namespace cannot be made: {os.strerror(number)}")
    os.write(told, b"1")
    _, status = os.waitpid(mapper, 0)
    if status != 0:
        raise OSError("the ids of the user namespace cannot be set")
    with open("/proc/sys/user/max_user_namespaces", "w") as limit:
        limit.write("0")  # of this namespace: a step can make none inside it
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
