"""Blobs: bytes named by their sha256, one file each, shared by all engines of a home.

Owns `Home.blobs`. Blocking: callers on the loop go through a thread. A blob appears whole or not at
all (temp file, fsync, rename). Which blobs are still needed is not known here: `collect` is told.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from minimodal.errors import NotFoundError, StateError
from minimodal.failpoints import FailpointError, failpoint
from minimodal.types import Buffer

from .trouble import Damaged, disk_full, free_bytes

GRACE = 24 * 3600.0  # seconds that an unmentioned blob is kept: between `put` and its row

_DIGEST = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The blobs under `directory`; `engine` marks its temp files, so that a sweeper knows whose."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.directory = directory
        self.engine = engine

    def put(self, data: Buffer) -> str:
        """Store and return the digest, after the bytes are on the disk. Raises StateError."""
        view = memoryview(data).cast("B")
        digest = hashlib.sha256(view).hexdigest()
        path = self.path(digest)
        try:
            if path.stat().st_size == view.nbytes:
                os.utime(path)  # tells a collector in another engine that it is wanted again
                path.stat()  # one that had looked at its time before has moved it away
                return digest
        except FileNotFoundError:
            pass
        try:
            self._write(path, view)
        except (OSError, FailpointError) as error:
            raise _in_words(error, path) from error
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes. Raises NotFoundError, or StateError if the file is damaged."""
        path = self.path(digest)
        for place in (path, _doomed(path), path):  # a collector may be moving it away and back
            try:
                data = place.read_bytes()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise _in_words(error, path) from error
            if hashlib.sha256(data).hexdigest() != digest:
                raise Damaged(
                    f"the file {place} is damaged: its content is not that of digest {digest}. What "
                    "refers to it is lost; the rest is not touched."
                )
            return data
        raise NotFoundError(f"no blob {digest} in {self.directory}")

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def delete(self, digest: str) -> None:
        """Remove it now, whoever refers to it. Not an error if it is gone."""
        failpoint("blobs.delete")
        self.path(digest).unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where its file is, if it is stored (to mount it; never to write there)."""
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a sha256 digest")
        return self.directory / digest[:2] / digest

    def digests(self) -> Iterator[str]:
        """All that are stored, in no order."""
        for path in self.directory.glob("??/*"):
            if _DIGEST.fullmatch(path.name):
                yield path.name

    def sweep(self, is_alive: Callable[[str], bool]) -> int:
        """Remove the temp files of dead engines, and what a collector's crash left. Returns how many."""
        removed = 0
        for path in self.directory.glob("tmp/*"):
            if path.name.split("+")[0] != self.engine and not is_alive(path.name.split("+")[0]):
                path.unlink(missing_ok=True)
                removed += 1
        for path in self.directory.glob("??/*.doomed"):
            _restore(path)  # it may have been wanted: the next collection decides again
        return removed

    def collect(self, referenced: Callable[[], Collection[str]], grace: float = GRACE) -> int:
        """Remove the blobs older than `grace` seconds that `referenced()` does not name.

        `referenced` is asked after the candidates are listed, so what is stored and mentioned in
        between is seen; what is stored *again* in between has a fresh time, which is looked at once
        more after the file was moved aside. Returns how many were removed.
        """
        now = self._file_system_now()
        old = {d for d in self.digests() if _modified(self.path(d)) < now - grace}
        removed = 0
        for digest in old.difference(referenced()) if old else ():
            path = self.path(digest)
            doomed = _doomed(path)
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, doomed)
                if _modified(doomed) < now - grace:
                    doomed.unlink()
                    removed += 1
                else:
                    _restore(doomed)
        return removed

    def _write(self, path: Path, view: memoryview) -> None:
        temp = self.directory / "tmp" / f"{self.engine}+{os.urandom(8).hex()}"
        for directory in (temp.parent, path.parent):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with open(temp, "xb", buffering=0, opener=_private) as file:
                failpoint("blobs.put.created")
                left = view
                while left:
                    left = left[file.write(left) :]  # an unbuffered write may take a part only
                failpoint("blobs.put.written")
                os.fsync(file.fileno())
            failpoint("blobs.put.synced")
            os.replace(temp, path)
            for directory in (path.parent, self.directory):  # the names too survive a power cut
                _sync_directory(directory)
            failpoint("blobs.put.renamed")
        except BaseException:
            temp.unlink(missing_ok=True)
            raise

    def _file_system_now(self) -> float:
        """The time by the clock that dates the files."""
        probe = self.directory / "tmp" / f"{self.engine}+now"
        probe.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe.touch()
        try:
            return _modified(probe)
        finally:
            probe.unlink(missing_ok=True)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _doomed(path: Path) -> Path:
    return path.with_name(path.name + ".doomed")


def _restore(doomed: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.replace(doomed, doomed.with_name(doomed.name.removesuffix(".doomed")))


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _in_words(error: Exception, path: Path) -> StateError:
    if isinstance(error, OSError) and error.errno in (28, 122):  # ENOSPC, EDQUOT
        return disk_full(path, free_bytes(path.parent))
    return StateError(f"the file {path} cannot be read or written: {error}")
