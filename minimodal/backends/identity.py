"""Who a bubblewrap sandbox runs as: always uid 1000 in a user namespace that can make no other.

Started by an ordinary user, bwrap makes the namespace itself. Started by root it would leave the
sandbox's processes root on the host: able to write host sysctls and to read every file of root.
So root prepares two nested namespaces once, whose uid 1000 is an unprivileged uid of the host: the
outer one in which bwrap mounts, and the inner one in which code runs, with no rights on any mount.
bwrap itself then runs as that uid too: the kernel passes on the death of a parent only to processes
that the parent was allowed to signal (tried: with bwrap as root a sandbox outlived its engine).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import anyio

from minimodal.errors import RuntimeUnavailable

from .userns_helper import SANDBOX_ID

# A number above those of people, of systemd and of usual subuid ranges; the same for every engine,
# so that the files of a volume keep one owner.
PREFERRED_UID = 2_000_001_000
FALLBACK_UID = 65534
_ROOT_INSIDE = 65534  # root of the host is shown as "nobody", as an ordinary user's bwrap shows it
_OTHERS_INSIDE = 100_000


class Identity(NamedTuple):
    """The arguments of bwrap that decide it, the descriptors they name, and the uid on the host."""

    arguments: tuple[str, ...]
    fds: tuple[int, ...]
    host_uid: int
    as_root: bool
    prefix: tuple[str, ...] = ()  # before bwrap: a program that changes the uid

    @property
    def spawn_as(self) -> int | None:
        """The uid to spawn bwrap with where no program changes it. Then Popen has to fork the
        whole engine: 100 ms where the script that hosts it has 1.5 GB (with `prefix`: 2 ms)."""
        return self.host_uid if self.as_root and not self.prefix else None

    @property
    def own_files(self) -> bool:
        """Whether the sandbox's files belong to the uid that the engine has."""
        return self.host_uid == os.getuid()


@asynccontextmanager
async def open_identity() -> AsyncIterator[Identity]:
    """Raises RuntimeUnavailable where this system lets us make no user namespace."""
    by_bwrap = ("--unshare-user", "--disable-userns", *_as_sandbox_user())
    if os.getuid() != 0:
        yield Identity(by_bwrap, (), os.getuid(), as_root=False)
        return
    uid = PREFERRED_UID if _mapped(PREFERRED_UID) else FALLBACK_UID
    outer, inner = await anyio.to_thread.run_sync(_namespaces, uid)
    try:
        arguments: tuple[str, ...] = (
            "--userns",
            str(outer),
            "--userns2",
            str(inner),
            "--assert-userns-disabled",
        )
        prefix = await anyio.to_thread.run_sync(_uid_changer, uid)
        arguments += _as_sandbox_user()
        yield Identity(arguments, (outer, inner), uid, as_root=True, prefix=prefix)
    finally:
        os.close(outer)
        os.close(inner)


def _uid_changer(uid: int) -> tuple[str, ...]:
    found = shutil.which("setpriv")
    if found is None:
        return ()
    prefix = (found, "--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--")
    done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
    return prefix if done.returncode == 0 else ()


def _as_sandbox_user() -> tuple[str, ...]:
    return ("--uid", str(SANDBOX_ID), "--gid", str(SANDBOX_ID))


def _namespaces(uid: int) -> tuple[int, int]:
    helper = Path(__file__).with_name("userns_helper.py")
    command = [sys.executable, "-I", "-S", str(helper), str(uid), _outer_map(uid)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline().split()
        if len(line) != 2:
            process.stdin.close()
            reason = process.stderr.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise RuntimeUnavailable(
                f"no user namespace with an unprivileged uid can be made here ({reason}). Run "
                "minimodal as an ordinary user, or use --backend docker or --backend process."
            )
        outer, inner = (os.open(f"/proc/{int(pid)}/ns/user", os.O_RDONLY) for pid in line)
        process.stdin.close()
    return outer, inner


def _outer_map(uid: int) -> str:
    """All uids of the host, so that bwrap may reach paths below anybody's home, and ours as 1000."""
    last = _last_mapped()
    lines = [f"{_ROOT_INSIDE} 0 1", f"{SANDBOX_ID} {uid} 1"]
    if uid > 1:
        lines.append(f"{_OTHERS_INSIDE} 1 {uid - 1}")
    if last > uid:
        lines.append(f"{_OTHERS_INSIDE + uid} {uid + 1} {last - uid}")
    return "\n".join(lines) + "\n"


def _mapped(uid: int) -> bool:
    return uid <= _last_mapped()


def _last_mapped() -> int:
    """The last uid of the range that starts at 0 in our own namespace."""
    last = 0
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, count = map(int, line.split())
        if first == 0:
            last = count - 1
    return min(last, 4_294_000_000 - _OTHERS_INSIDE)
