"""What SQLite and the disk say, in words that name the file and the way out. Pure but for a stat."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from minimodal.errors import StateError


class DiskFailure(StateError):
    """Neither full, locked nor damaged: tolerated a few times, then the engine must stop."""


class Fatal(StateError):
    """The database cannot be relied on any more: the engine must stop."""


def in_words(error: Exception, path: Path, wait: float) -> StateError:
    """The error for users. Fatal only where waiting cannot help."""
    text = str(error)
    free = free_bytes(path.parent)
    if is_locked(error):
        return StateError(
            f"the database {path} is locked by another program; gave up after {wait:g} s. Close what "
            "has it open (a database browser, a backup)."
        )
    if "is full" in text or ("I/O error" in text and free < 1 << 20):
        return disk_full(path, free)
    if "malformed" in text or "not a database" in text:
        return damaged(path, text)
    if "readonly" in text or "unable to open" in text:
        return StateError(f"the database {path} cannot be written: {text}{_owner(path)}.")
    return DiskFailure(f"the database {path} failed: {text}. Nothing was recorded.")


def is_locked(error: Exception) -> bool:
    return "is locked" in str(error) or "is busy" in str(error)


def disk_full(path: Path, free: int) -> StateError:
    return StateError(
        f"the disk of {path} is full ({free} bytes free): nothing was recorded. Free some space; the "
        "engine goes on by itself."
    )


class Damaged(StateError):
    """Waiting does not help: what was stored there is lost."""


def damaged(path: Path, reason: str) -> Fatal:
    return Fatal(
        f"the database {path} is damaged: {reason}. It was left as it is. `minimodal doctor` shows "
        "the damage; move the file away to start with an empty one."
    )


def free_bytes(directory: Path) -> int:
    try:
        return shutil.disk_usage(directory).free
    except OSError:
        return 0


def _owner(path: Path) -> str:
    for place in (path, path.parent):
        with contextlib.suppress(OSError):
            return f" ({place} belongs to uid {place.stat().st_uid}, this is uid {os.getuid()})"
    return ""
