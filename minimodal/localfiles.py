"""The user's files as `LocalFile` records: walking, digests, and one consistent read of a file.

Knows nothing of images. Links are kept as links and never followed inside a tree, so what travels
never leaves the directory that was named; pipes, sockets and devices are refused.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InvalidError
from .ignore import Ignore, can_prune
from .layers import LocalFile

if TYPE_CHECKING:
    import hashlib

MAX_FILES = 200_000
COPY_TRIES = 40  # of one file that keeps changing
_RACY = 50_000_000  # ns: a file changed this recently may change again with the same time stamp

Stamp = tuple[int, int, int, int]  # size, mtime_ns, ctime_ns, inode
_known: dict[str, tuple[Stamp, str]] = {}  # path -> digest; filled by digest_of only


def local_file(path: Path, target: str) -> LocalFile:
    """The record of one file or link, its digest taken from its bytes."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        raise FileNotFoundError(f"the local file {path} does not exist") from None
    if stat.S_ISLNK(info.st_mode):
        digest = _sha256(os.fsencode(os.readlink(path)))
        return LocalFile(target, digest.hexdigest(), str(path), stat.S_IFLNK | 0o777)
    if not stat.S_ISREG(info.st_mode):
        raise InvalidError(f"{path} is {_kind(info.st_mode)}: add it to ignore=, it cannot travel")
    return LocalFile(target, digest_of(path, info), str(path), readable(info.st_mode))


def readable(mode: int) -> int:
    """0o644 or 0o755: containers run as another uid, and only the x bit is content."""
    return 0o755 if mode & 0o111 else 0o644


def digest_of(path: Path, info: os.stat_result | None = None) -> str:
    """sha256 of a file's bytes; known from before if size, times and inode are the same."""
    info = info or path.stat()
    key, now = str(path), time.time_ns()
    known = _known.get(key)
    if known and known[0] == stamp(info):
        return known[1]
    digest = _sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        after = os.fstat(file.fileno())
    if stamp(after) == stamp(info) and settled(info, now):
        _known[key] = (stamp(info), digest.hexdigest())
    return digest.hexdigest()


def _sha256(data: bytes = b"") -> hashlib._Hash:
    import hashlib  # here and in layers.py: it loads a large library, and containers need none

    return hashlib.sha256(data)


def stamp(info: os.stat_result) -> Stamp:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)


def settled(info: os.stat_result, now_ns: int) -> bool:
    """Old enough that a later change is sure to show in its time stamps."""
    return now_ns - max(info.st_mtime_ns, info.st_ctime_ns) > _RACY


def copy_settled(source: Path, target: Path) -> tuple[str, int]:
    """Copy a file as it was at one moment, though somebody may be writing it: (digest, mode).

    The digest is of the bytes copied, so what is named and what is stored are the same whatever
    happens to the source.
    """
    for _ in range(COPY_TRIES):
        digest = _sha256()
        with open(source, "rb") as reader, open(target, "wb") as writer:
            before, size = os.fstat(reader.fileno()), 0
            while chunk := reader.read(1 << 20):
                digest.update(chunk)
                size += writer.write(chunk)
            after = os.fstat(reader.fileno())
        # An editor that truncates and then writes shows an empty file for a moment.
        unchanged = stamp(before) == stamp(after) and size == after.st_size
        if unchanged and (size or settled(after, time.time_ns())):
            mode = readable(after.st_mode)
            target.chmod(mode)
            return digest.hexdigest(), mode
        time.sleep(0.01)
    raise InvalidError(f"{source} keeps changing while it is read; try again when it is written")


def walk(root: Path, ignore: Ignore) -> Iterator[tuple[str, Path]]:
    """(relative path, path) of the files and links under `root`, sorted, without ignored ones."""
    prune, count = can_prune(ignore), 0
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(root / prefix) as entries:
                found = sorted(entries, key=lambda e: e.name)
        except NotADirectoryError:
            raise NotADirectoryError(f"{root} is not a directory") from None
        except FileNotFoundError:
            if prefix:
                continue  # it went away while we walked
            raise FileNotFoundError(f"the local directory {root} does not exist") from None
        below = []
        for entry in found:
            relative = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                if not (prune and ignore(Path(relative))):
                    below.append(relative + "/")
            elif not ignore(Path(relative)):
                count += 1
                if count > MAX_FILES:
                    raise InvalidError(
                        f"{root} holds more than {MAX_FILES:,} files: name what to leave out "
                        "with ignore=[...] or a .dockerignore file"
                    )
                yield relative, root / relative
        pending.extend(reversed(below))


def tree(root: Path, target: str, ignore: Ignore) -> tuple[LocalFile, ...]:
    """The records of all files under `root`, to lie under `target`."""
    prefix = target.rstrip("/")
    return tuple(local_file(path, f"{prefix}/{name}") for name, path in walk(root, ignore))


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory"}
    return kinds.get(stat.S_IFMT(mode), "a device")
