"""Where the layers of the bubblewrap backend lie, and how they become visible: by one rename.

    Home.layers/<digest>/files/       what the layer adds: usr/, etc/, opt/ … as in the container
    Home.layers/<digest>/layer.json   its parent's digest and what the builder wants to remember
    Home.layers/.draft-<random>/      files/ and work/ (overlay's own) of a layer being built

`files` is an overlay upper directory per top-level directory. Overlays are mounted in a user
namespace, where whiteouts are `user.overlay.*`: a layer must be built in one too.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from minimodal.errors import BuildError
from minimodal.home import Home

_DRAFT = ".draft-"


class StoredLayer(NamedTuple):
    """A committed layer. `meta` is the builder's own, JSON-able."""

    digest: str
    parent: str | None
    path: Path
    meta: Mapping[str, Any]

    @property
    def files(self) -> Path:
        return self.path / "files"

    def top_directories(self) -> tuple[str, ...]:
        """Names at the layer's root, such as "usr" and "etc"."""
        return tuple(sorted(entry.name for entry in os.scandir(self.files)))


class Draft(NamedTuple):
    """A layer being built. It vanishes unless it is committed within its block."""

    path: Path

    @property
    def files(self) -> Path:
        return self.path / "files"

    def upper(self, top: str) -> Path:
        """The upper directory for `/top`, made on first use."""
        directory = self.files / top
        directory.mkdir(exist_ok=True)
        return directory

    def work(self, top: str) -> Path:
        """Overlay's work directory for `/top`: empty, and on the same file system as `upper`."""
        directory = self.path / "work" / top
        directory.mkdir(parents=True, exist_ok=True)
        return directory


class LayerStore:
    """The layers of one home. Several engines may use it at once."""

    def __init__(self, home: Home) -> None:
        self.path = home.layers

    def find(self, digest: str) -> StoredLayer | None:
        """The committed layer of that digest: one file read."""
        path = self._path(digest)
        try:
            record = json.loads((path / "layer.json").read_bytes())
        except FileNotFoundError:
            return None
        return StoredLayer(digest, record["parent"], path, record["meta"])

    def stack(self, digest: str) -> tuple[StoredLayer, ...]:
        """The layer and all below it, lowest first. Raises BuildError if one is gone."""
        found: list[StoredLayer] = []
        wanted: str | None = digest
        while wanted is not None:
            layer = self.find(wanted)
            if layer is None:
                raise BuildError(f"layer {wanted[:12]} of image {digest[:12]} is gone; build again")
            found.append(layer)
            wanted = layer.parent
        return tuple(reversed(found))

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A place to build a layer in. Blocking: call it in a thread."""
        with self._new() as path:
            path.chmod(0o755)
            (path / "files").mkdir(mode=0o755)
            yield Draft(path)

    @contextmanager
    def _new(self) -> Iterator[Path]:
        """A directory that no sweep takes; what is left of it after the block is removed."""
        self.path.mkdir(parents=True, exist_ok=True)
        lock = None
        while lock is None:  # a sweep may have been quicker
            path = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.path))
            lock = _lock(path)
        try:
            yield path
        finally:
            remove_tree(path)
            os.close(lock)

    def commit(
        self, draft: Draft, digest: str, parent: str | None, meta: Mapping[str, Any]
    ) -> StoredLayer:
        """Make the draft the layer of that digest. Whoever comes second keeps the first one's."""
        remove_tree(draft.path / "work")
        record = draft.path / "layer.json"
        with record.open("w") as file:
            json.dump({"parent": parent, "meta": dict(meta)}, file)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.rename(draft.path, self._path(digest))
        except OSError:
            if self.find(digest) is None:
                raise
        layer = self.find(digest)
        assert layer is not None
        return layer

    def all(self) -> tuple[StoredLayer, ...]:
        names = os.listdir(self.path) if self.path.is_dir() else ()
        layers = (self.find(name) for name in names if not name.startswith("."))
        return tuple(layer for layer in layers if layer is not None)

    def remove(self, digest: str) -> None:
        """Remove one layer: first it stops to exist for others, then its files go."""
        with self._new() as gone, suppress(FileNotFoundError):
            os.rename(self._path(digest), gone / "removed")

    def sweep(self) -> None:
        """Remove the drafts of builders that died."""
        for path in self.path.glob(f"{_DRAFT}*"):
            lock = _lock(path)
            if lock is not None:
                remove_tree(path)
                os.close(lock)

    def _path(self, digest: str) -> Path:
        if not digest or not digest.isalnum():
            raise BuildError(f"{digest!r} is not the digest of a layer")
        return self.path / digest


def remove_tree(path: Path) -> None:
    """Remove a tree that may hold directories without permissions (overlay's work directory)."""
    with suppress(FileNotFoundError):
        try:
            shutil.rmtree(path)
        except PermissionError:
            for place, names, _ in os.walk(path):
                for name in names:
                    directory = os.path.join(place, name)
                    if not os.path.islink(directory):  # its target is not ours to change
                        os.chmod(directory, 0o700)
            shutil.rmtree(path)


def _lock(path: Path) -> int | None:
    """Hold the directory of a draft, as its builder does and as who removes it must; None where
    another has it, or it is gone."""
    # flock, not lockf: one process may build several layers and sweep at the same time. The directory
    # itself, not a file in it: that would have to appear after it, and to go before it.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False
