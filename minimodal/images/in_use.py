"""Which images have running containers, of whatever engine: the kernel knows, by shared locks.

`hold` is for the time of a container; `unused` is for whoever wants to remove the image.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from minimodal.errors import BuildError
from minimodal.home import Home


@contextmanager
def hold(home: Home, name: str) -> Iterator[None]:
    """Keep an image from being removed. `name` is `ImageRef.name`. Raises BuildError if it is going."""
    if not name:
        yield
        return
    fd = _open(home, name)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"image {name[:12]} is being removed; run it again") from None
        os.utime(fd)
        yield
    finally:
        os.close(fd)


@contextmanager
def unused(home: Home, name: str) -> Iterator[bool]:
    """Whether no container has it; in the block none can start with it."""
    fd = _open(home, name)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)


def note(home: Home, name: str) -> None:
    """A container is about to start with it, or it was just built."""
    fd = _open(home, name)
    try:
        os.utime(fd)
    finally:
        os.close(fd)


def last_use(home: Home, name: str) -> float:
    """When a container was last started with it; 0 if never."""
    try:
        return _path(home, name).stat().st_mtime
    except FileNotFoundError:
        return 0.0


def forget(home: Home, name: str) -> None:
    _path(home, name).unlink(missing_ok=True)


def _open(home: Home, name: str) -> int:
    path = _path(home, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        fd = os.open(path, flags | os.O_EXCL, 0o600)
        os.utime(fd, (0, 0))  # looking is not a use
        return fd
    except FileExistsError:
        return os.open(path, flags, 0o600)


def _path(home: Home, name: str) -> Path:
    return home.cache / "images-in-use" / os.path.basename(name)
