"""The accounts that a sandbox sees: the host's system accounts, and its own user with uid 1000."""

from __future__ import annotations

from pathlib import Path

from .userns_helper import SANDBOX_ID

ACCOUNT = "user"


def write_accounts(directory: Path) -> tuple[Path, Path]:
    """Files for /etc/passwd and /etc/group. Names of the host's people are left out."""
    directory.mkdir(parents=True, exist_ok=True)
    passwd, group = directory / "passwd", directory / "group"
    own = f"{ACCOUNT}:x:{SANDBOX_ID}:{SANDBOX_ID}::/root:/bin/sh"
    passwd.write_text(_accounts(Path("/etc/passwd"), own))
    group.write_text(_accounts(Path("/etc/group"), f"{ACCOUNT}:x:{SANDBOX_ID}:"))
    for path in (passwd, group):
        path.chmod(0o644)
    return passwd, group


def _accounts(path: Path, own: str) -> str:
    kept = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit() and _is_system(int(fields[2])):
            kept.append(line)
    return "\n".join([*kept, own]) + "\n"


def _is_system(number: int) -> bool:
    return number < SANDBOX_ID or number == 65534
