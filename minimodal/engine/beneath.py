"""A directory that a container can write, used by the engine: no path ever leads out of it.

Each component is opened relative to the one above and never through a symbolic link, so that one
that is swapped between a check and its use leads nowhere. What is opened is checked, not its name.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
from collections.abc import Iterator
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for a writer.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Beneath:
    """Made over an existing directory; close it."""

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _DIRECTORY)
        status = os.fstat(self._root)
        self._owner = (status.st_uid, status.st_gid)

    def close(self) -> None:
        os.close(self._root)

    def walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """All that is below: (path, status), a directory before its content. Links are not followed."""
        yield from self._walk(self._root, "")

    def _walk(self, directory: int, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                yield prefix + name, status
                if not stat.S_ISDIR(status.st_mode):
                    continue
                below = os.open(name, _DIRECTORY, dir_fd=directory)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it was removed, or replaced, while we looked
            try:
                yield from self._walk(below, f"{prefix}{name}/")
            finally:
                os.close(below)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[tuple[int, os.stat_result] | None]:
        """A regular file, for reading; None where it is none any more."""
        with self._parent(path) as (directory, name):
            try:
                fd = os.open(name, _FILE, dir_fd=directory)
            except OSError:
                yield None
                return
            try:
                status = os.fstat(fd)
                yield (fd, status) if stat.S_ISREG(status.st_mode) else None
            finally:
                os.close(fd)

    def link_target(self, path: str) -> str:
        with self._parent(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    def status(self, path: str) -> os.stat_result:
        with self._parent(path) as (directory, name):
            return os.stat(name, dir_fd=directory, follow_symlinks=False)

    # --- changing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def place(self, path: str) -> Iterator[tuple[int, str]]:
        """The directory to put `path` into, made if need be, and the name there, which is free
        unless it is a file's. What is in the way is removed."""
        with self._parent(path, make=True) as (directory, name):
            if _is_directory(directory, name):
                _remove_tree(directory, name)
            yield directory, name

    def put(self, staged: Path, path: str) -> None:
        """Move a prepared file (on the same file system) to `path`, over what is there."""
        if self._owner != (os.geteuid(), os.getegid()) and os.geteuid() == 0:
            os.chown(staged, *self._owner, follow_symlinks=False)
        with self.place(path) as (directory, name):
            os.replace(staged, name, dst_dir_fd=directory)

    def make_directory(self, path: str) -> None:
        with self._parent(path, make=True) as (directory, name):
            os.close(self._step(directory, name, make=True))

    def remove(self, path: str) -> None:
        """Remove a file, a link, or an empty directory; not an error if it is not there."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            with self._parent(path) as (directory, name):
                if not _is_directory(directory, name):
                    os.unlink(name, dir_fd=directory)
                    return
                with contextlib.suppress(OSError):  # not empty: somebody put something there
                    os.rmdir(name, dir_fd=directory)

    @contextlib.contextmanager
    def _parent(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        above, name = posixpath.split(path)
        fd = os.dup(self._root)
        try:
            for part in filter(None, above.split("/")):
                below = self._step(fd, part, make)
                os.close(fd)
                fd = below
            yield fd, name
        finally:
            os.close(fd)

    def _step(self, directory: int, name: str, make: bool) -> int:
        """Open a directory; with `make` it becomes one, whatever it was."""
        try:
            return os.open(name, _DIRECTORY, dir_fd=directory)
        except OSError:
            if not make:
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory)
        os.mkdir(name, 0o755, dir_fd=directory)
        fd = os.open(name, _DIRECTORY, dir_fd=directory)
        os.fchmod(fd, 0o755)
        if os.geteuid() == 0:
            os.fchown(fd, *self._owner)
        return fd


def _is_directory(directory: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _remove_tree(directory: int, name: str) -> None:
    below = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        for each in os.listdir(below):
            if _is_directory(below, each):
                _remove_tree(below, each)
            else:
                os.unlink(each, dir_fd=below)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=directory)
