"""A script, run by itself on the host: one more process inside a running bubblewrap sandbox.

    python -I -S enter.py <descriptor of a JSON request>

Joins the sandbox's cgroups and namespaces, gives up every privilege, runs the command and ends
with its exit code. It works for root and for the ordinary user who owns the sandbox's namespaces.
Standard library only; imports nothing of ours: it runs in a bare interpreter.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any

NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 24, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
NOT_FOUND = 127

libc = ctypes.CDLL(None, use_errno=True)


def main(request: dict[str, Any]) -> int:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    for path in request["cgroups"]:
        with open(path, "w") as file:
            file.write("0")
    pidfd = os.pidfd_open(request["pid"])
    namespaces = NEWUSER | NEWNS | NEWPID | NEWIPC | NEWUTS
    if request["own_network"]:
        namespaces |= NEWNET
    if libc.setns(pidfd, namespaces) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
    os.close(pidfd)
    child = os.fork()  # only a child is in the new pid namespace
    if child == 0:
        try:
            _become(request)
        except OSError as error:
            _say(error)
            os._exit(NOT_FOUND)
    # The child leads a session inside: whoever ends us means all of it.
    signal.signal(signal.SIGTERM, lambda *_: _end(child))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end(child: int) -> None:
    for pid in (-child, child):  # it may not lead a group yet
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has ended


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    if request["change_uid"]:
        os.setgroups([])
        os.setresgid(*[request["id"]] * 3)
        os.setresuid(*[request["id"]] * 3)
    _drop_capabilities()
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the uid: a change clears it
    for name in (signal.SIGPIPE, signal.SIGINT):
        signal.signal(name, signal.SIG_DFL)
    os.chdir(request["workdir"])
    command = request["command"]
    os.execvpe(command[0], command, request["env"])


def _drop_capabilities() -> None:
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # past the last one, or not permitted any more
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if libc.capset(header, nothing) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def _say(error: OSError) -> None:
    os.write(2, f"minimodal: {error.filename or 'exec'}: {error.strerror}\n".encode())


if __name__ == "__main__":
    fd = int(sys.argv[1])
    with open(fd, "rb") as source:
        wanted = json.load(source)
    try:
        sys.exit(main(wanted))
    except OSError as error:
        _say(error)
        sys.exit(126)
