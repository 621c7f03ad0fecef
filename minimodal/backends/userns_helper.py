"""A script, run by itself: holds two nested user namespaces open while the engine takes them.

    python -I -S userns_helper.py <uid that shall own them> <uid and gid map of the outer one>

Prints the pids of a process in the outer and of one in the inner namespace, waits for the end of
its input, and leaves. Standard library only; imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWUSER = 0x10000000
PR_SET_KEEPCAPS = 8
CAPABILITY_VERSION_3 = 0x20080522
SANDBOX_ID = 1000


libc = ctypes.CDLL(None, use_errno=True)


def main(owner: int, outer_map: str) -> None:
    outer_ready, outer_mapped = _Gate(), _Gate()
    outer = os.fork()
    if outer == 0:
        _become(owner)
        _unshare()
        outer_ready.open()
        outer_mapped.wait()
        # One more namespace may be made in this one: the inner one, which then can make none.
        with open("/proc/sys/user/max_user_namespaces", "w") as limit:
            limit.write("1")
        inner_ready = _Gate()
        inner = os.fork()
        if inner == 0:
            _unshare()
            inner_ready.open()
            sys.stdin.buffer.read()
            os._exit(0)
        inner_ready.wait()
        _map(inner, f"{SANDBOX_ID} {SANDBOX_ID} 1")
        os.write(1, f"{os.getpid()} {inner}\n".encode())
        sys.stdin.buffer.read()
        os._exit(0)
    outer_ready.wait()
    _map(outer, outer_map)  # only from the namespace above, by who is root there
    outer_mapped.open()
    os.waitpid(outer, 0)


def _become(uid: int) -> None:
    """Change the uid and keep the capabilities: who may make no namespace by itself may own one."""
    libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then their upper halves
    _check(libc.capget(header, sets), "capget")
    sets[0], sets[3] = sets[1], sets[4]
    _check(libc.capset(header, sets), "capset")


def _unshare() -> None:
    _check(libc.unshare(CLONE_NEWUSER), "unshare(CLONE_NEWUSER)")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _map(pid: int, text: str) -> None:
    for kind in ("uid", "gid"):
        with open(f"/proc/{pid}/{kind}_map", "w") as file:
            file.write(text)


class _Gate:
    """Lets another process wait for this one. `wait` fails if the other died."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()

    def open(self) -> None:
        os.write(self._writer, b"1")

    def wait(self) -> None:
        os.close(self._writer)
        if not os.read(self._reader, 1):
            raise SystemExit("a helper process died")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
