"""The content of a volume's files: one object for each different content, named by its digest.

A digest covers the digests of the content's chunks, so that a piece of a large file can be checked
before it is given to anybody, and a hole of a terabyte costs nothing to hash or to copy. An object
is written under a temporary name, synced and renamed: what has a digest for a name is whole.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from minimodal.errors import VolumeError
from minimodal.failpoints import failpoint

from .file_lock import sync_directory

CHUNK_BYTES = 4 << 20
_HOLE = bytes(32)  # the digest of a chunk of zeros
_FICLONE = 0x40049409
_STAMP = 0  # mtime of each object: another one says that somebody wrote into it
_NO_COPY_FILE_RANGE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Contents:
    """The objects of one volume."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True, mode=0o700)

    def put(self, source: int, what: str) -> tuple[str, int]:
        """Keep the content of an open file; its digest and size."""
        part = self.directory / f"{os.getpid()}-{os.urandom(6).hex()}.tmp"
        with wrapped(self.directory, what):
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                size, chunks = _copy_hashed(source, fd)
                digest = _digest_of(chunks, size)
                target = self._path(digest)
                if not self._is_whole(target, size):
                    self._finish(fd, part, target, chunks)
                return digest, size
            finally:
                os.close(fd)
                part.unlink(missing_ok=True)

    def _finish(self, fd: int, part: Path, target: Path, chunks: list[bytes]) -> None:
        failpoint("volume.object.written")
        os.fchmod(fd, 0o444)
        os.utime(fd, ns=(_STAMP, _STAMP))
        os.fsync(fd)
        target.parent.mkdir(exist_ok=True, mode=0o700)
        if len(chunks) > 1:
            beside = part.with_suffix(".chunks.tmp")
            try:
                with open(beside, "wb") as file:
                    file.write(b"".join(chunks))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(beside, _chunk_list(target))
            finally:
                beside.unlink(missing_ok=True)
        failpoint("volume.object.synced")
        os.replace(part, target)
        sync_directory(target.parent)
        failpoint("volume.object.renamed")

    def chunk(self, digest: str, index: int, what: str) -> bytes:
        """One chunk, checked. Raises VolumeError naming the file and the digest if it is damaged."""
        path = self._path(digest)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _gone(what, digest) from None
        try:
            size = os.fstat(fd).st_size
            chunks = self._chunks(digest, fd, size, what)
            if not 0 <= index < len(chunks):
                raise VolumeError(f"{what} has no chunk {index}")
            data = os.pread(fd, CHUNK_BYTES, index * CHUNK_BYTES)
        finally:
            os.close(fd)
        if _chunk_digest(data) != chunks[index]:
            raise _damaged(what, digest)
        return data

    def copy_to(self, digest: str, target: int, what: str) -> None:
        """Write the content into an open, empty file: as a clone where the file system can, and
        always without its bytes passing through here, unless somebody wrote into the object."""
        with self._opened(digest, what) as (fd, size, is_ours):
            with wrapped(self.directory, what):
                if is_ours:
                    if not size or not _clone(fd, target):
                        _copy(fd, target, size)
                    return
            chunks = self._chunks(digest, fd, size, what)
            with wrapped(self.directory, what):
                os.ftruncate(target, size)
                for index, expected in enumerate(chunks):
                    if expected == _HOLE:
                        self._require_zeros(fd, index, size, what, digest)
                        continue
                    data = os.pread(fd, CHUNK_BYTES, index * CHUNK_BYTES)
                    if _chunk_digest(data) != expected:
                        raise _damaged(what, digest)
                    _write_at(target, data, index * CHUNK_BYTES)

    @staticmethod
    def _require_zeros(fd: int, index: int, size: int, what: str, digest: str) -> None:
        start = index * CHUNK_BYTES
        if _next_data(fd, start, size) < min(start + CHUNK_BYTES, size):
            if os.pread(fd, CHUNK_BYTES, start).strip(b"\0"):
                raise _damaged(what, digest)

    def link_to(self, digest: str, directory: int, name: str, what: str) -> None:
        """A further name for the object itself, for what is mounted read-only."""
        with self._opened(digest, what) as (fd, size, is_ours):
            if not is_ours:
                self._verify(digest, fd, size, what)
        os.link(self._path(digest), name, dst_dir_fd=directory)

    def names(self) -> Iterator[tuple[str, Path]]:
        """All files here: (digest, path); what a crash left behind has the digest ""."""
        for path in self.directory.rglob("*"):
            if path.is_file():
                name = path.name.removesuffix(".chunks")
                yield ("" if name.endswith(".tmp") else name), path

    @contextlib.contextmanager
    def _opened(self, digest: str, what: str) -> Iterator[tuple[int, int, bool]]:
        """The object's descriptor and size, and whether nobody has written since it was made."""
        try:
            fd = os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _gone(what, digest) from None
        try:
            status = os.fstat(fd)
            yield fd, status.st_size, status.st_mtime_ns == _STAMP
        finally:
            os.close(fd)

    def _verify(self, digest: str, fd: int, size: int, what: str) -> None:
        for index, expected in enumerate(self._chunks(digest, fd, size, what)):
            if _chunk_digest(os.pread(fd, CHUNK_BYTES, index * CHUNK_BYTES)) != expected:
                raise _damaged(what, digest)

    def _chunks(self, digest: str, fd: int, size: int, what: str) -> list[bytes]:
        """The digests of the chunks, checked against that of the whole."""
        if size <= CHUNK_BYTES:
            chunks = [_chunk_digest(os.pread(fd, CHUNK_BYTES, 0))] if size else []
        else:
            try:
                packed = _chunk_list(self._path(digest)).read_bytes()
            except FileNotFoundError:
                raise _damaged(what, digest) from None
            chunks = [packed[at : at + 32] for at in range(0, len(packed), 32)]
        if _digest_of(chunks, size) != digest:
            raise _damaged(what, digest)
        return chunks

    def _is_whole(self, path: Path, size: int) -> bool:
        try:
            status = path.stat()
        except FileNotFoundError:
            return False
        return status.st_size == size and status.st_mtime_ns == _STAMP

    def _path(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise VolumeError(f"{digest!r} is no digest")
        return self.directory / digest[:2] / digest


def chunk_count(size: int) -> int:
    return -(-size // CHUNK_BYTES)


@contextlib.contextmanager
def wrapped(directory: Path, what: str) -> Iterator[None]:
    """What the disk says, as a VolumeError that names the file and the free space."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise VolumeError(f"{what}: {error}") from error
        free = shutil.disk_usage(directory).free
        raise VolumeError(
            f"{what}: no space left for the volume at {directory.parent} ({free} bytes free). Nothing "
            "was committed; free some space and try again."
        ) from error


def _copy_hashed(source: int, target: int) -> tuple[int, list[bytes]]:
    """Copy from any open file; holes stay holes. The digests are those of the copy, which nobody
    else can write."""
    size = os.fstat(source).st_size
    if not size or not _clone(source, target):
        _copy(source, target, size)
    size = os.fstat(target).st_size
    chunks: list[bytes] = []
    buffer = memoryview(bytearray(min(size, CHUNK_BYTES)))
    data_at = -1
    for start in range(0, size, CHUNK_BYTES):
        wanted = min(CHUNK_BYTES, size - start)
        if data_at < start:
            data_at = _next_data(target, start, size)
        if data_at >= start + wanted:
            chunks.append(_HOLE)
            continue
        _read_into(buffer[:wanted], target, start)
        chunks.append(_chunk_digest(buffer[:wanted]))
    return size, chunks


def _copy(source: int, target: int, size: int) -> None:
    """In the kernel, extent by extent. A file that shrinks meanwhile gives a shorter copy."""
    end = 0
    while end < size:
        start = _next_data(source, end, size)
        if start >= size:
            break
        end = min(size, _next_hole(source, start, size))
        while start < end:
            copied = _copy_range(source, target, start, end - start)
            if not copied:
                os.ftruncate(target, start)
                return
            start += copied
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, count: int) -> int:
    try:
        copied = os.copy_file_range(source, target, count, start, start)
        if copied:
            return copied  # some file systems give 0 though bytes are left: those are read
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_COPY_FILE_RANGE:
            raise
    data = os.pread(source, min(count, CHUNK_BYTES), start)
    _write_at(target, data, start)
    return len(data)


def _next_hole(fd: int, start: int, size: int) -> int:
    try:
        return os.lseek(fd, start, os.SEEK_HOLE)
    except OSError:
        return size  # it cannot say


def _next_data(fd: int, start: int, size: int) -> int:
    """Where the next bytes are that may not be zero."""
    try:
        return os.lseek(fd, start, os.SEEK_DATA)
    except OSError as error:
        return size if error.errno == errno.ENXIO else start  # ENXIO: none; else it cannot say


def _read_into(buffer: memoryview, fd: int, start: int) -> None:
    while buffer:
        count = os.preadv(fd, [buffer], start)
        if not count:
            raise OSError(errno.EIO, "the copy is shorter than it was")
        buffer, start = buffer[count:], start + count


def _write_at(fd: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, start)
        view, start = view[written:], start + written


def _clone(source: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def _chunk_digest(data: bytes | memoryview) -> bytes:
    if data[:1] == b"\0" and not bytes(data).strip(b"\0"):
        return _HOLE
    return hashlib.sha256(data).digest()


def _digest_of(chunks: list[bytes], size: int) -> str:
    return hashlib.sha256(b"".join((*chunks, size.to_bytes(8, "little")))).hexdigest()


def _chunk_list(target: Path) -> Path:
    return target.with_name(target.name + ".chunks")


def _damaged(what: str, digest: str) -> VolumeError:
    return VolumeError(f"{what} is damaged: its stored content is not that of digest {digest}")


def _gone(what: str, digest: str) -> VolumeError:
    return VolumeError(f"{what}: its content {digest} is gone from the volume's store")
