"""Paths inside a volume: always relative, `/` between parts, and never out of it. Pure."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePath

from .errors import InvalidError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4_000


class FileEntryType(Enum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One line of a listing. `mtime`: seconds since 1970; `size`: bytes."""

    path: str
    type: FileEntryType
    mtime: float
    size: int


def inside(path: object) -> str:
    """`path` without its leading `/`; "" is the volume itself. Raises InvalidError where it leads out."""
    if not isinstance(path, (str, PurePath)):
        raise InvalidError(f"a path in a volume is a text, not {path!r}")
    text = str(path)
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidError(f"{text!r} leads out of the volume: '..' is not allowed")
    if "\0" in text:
        raise InvalidError(f"{text!r} cannot be a path: it holds a NUL character")
    if any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        raise InvalidError(f"{text[:80]!r}…: a name in a volume has {MAX_NAME_BYTES} bytes at most")
    found = "/".join(parts)
    if len(os.fsencode(found)) > MAX_PATH_BYTES:
        raise InvalidError(f"{text[:80]!r}…: a path in a volume has {MAX_PATH_BYTES} bytes at most")
    return found


def stays_inside(path: str, target: str) -> bool:
    """Whether a symbolic link at `path` leads to a place in the same volume."""
    if target.startswith("/") or not target or "\0" in target:
        return False
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return reached != ".." and not reached.startswith("../")
