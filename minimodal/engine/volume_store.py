"""One volume on disk: its objects, its snapshots, and the pointer to the current one.

    volume.json     name, time, the engine of an ephemeral one
    head            digest of the current snapshot; swapped as one step
    snapshots/      the tree of each snapshot, by its digest
    objects/        contents (volume_content.py)

Blocking and safe between threads, engines and commands: `lock` is held for a swap, and `in-use` by
whoever stores objects that no snapshot names yet, so that nothing is collected under them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from minimodal.errors import NotFoundError, VolumeError
from minimodal.failpoints import failpoint

from .file_lock import locked, locked_if_free, write_whole
from .volume_content import Contents, wrapped
from .volume_tree import Changes, Entry, File, dumped, loaded, merged

KEEP_SECONDS = 600.0  # an earlier snapshot stays readable for those who read it now
KEEP_SNAPSHOTS = 100
COLLECT_EVERY = 64  # commits


class VolumeRecord(NamedTuple):
    """`name` None: ephemeral, and ends with `engine`."""

    id: str
    name: str | None
    created: float  # wall clock
    engine: str = ""


class VolumeStore:
    """A volume's directory, which exists."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.id = directory.name
        (directory / "snapshots").mkdir(exist_ok=True, mode=0o700)
        self.contents = Contents(directory / "objects")
        self._commits = 0
        self._cached: tuple[str, dict[str, Entry]] = ("", {})

    # --- the record --------------------------------------------------------------------------------

    def require(self) -> None:
        """Raise NotFoundError where it was deleted meanwhile."""
        _ = self.record

    @property
    def record(self) -> VolumeRecord:
        try:
            return VolumeRecord(**json.loads((self.directory / "volume.json").read_bytes()))
        except FileNotFoundError:
            raise NotFoundError(f"there is no volume {self.id}: it was deleted") from None

    def save(self, record: VolumeRecord) -> None:
        write_whole(self.directory / "volume.json", json.dumps(record._asdict()).encode())

    # --- snapshots ---------------------------------------------------------------------------------

    def tree(self) -> dict[str, Entry]:
        """What is committed. Not to be changed."""
        for _ in range(3):
            digest = self._head()
            if digest == self._cached[0]:
                return self._cached[1]
            try:
                tree = self._load(digest)
            except FileNotFoundError:
                continue  # a commit, and a collection, came between the two reads
            self._cached = digest, tree
            return tree
        raise VolumeError(f"the volume {self.id} is damaged: its current snapshot is gone")

    def apply(self, change: Callable[[dict[str, Entry]], Changes]) -> None:
        """Commit what `change` makes of the current tree: wholly, or not at all."""
        self.require()
        with locked(self._lock):
            tree = self.tree()
            changed = merged(tree, change(tree))
            if changed != tree:
                with wrapped(self.directory / "snapshots", f"volume {self.id}"):
                    self._swap(changed)
        self._commits += 1
        if self._commits % COLLECT_EVERY == 0:
            self.collect()

    def _swap(self, tree: dict[str, Entry]) -> None:
        text = dumped(tree)
        digest = hashlib.sha256(text).hexdigest()
        failpoint("volume.commit.stored")
        write_whole(self.directory / "snapshots" / digest, text)
        failpoint("volume.commit.snapshot")
        write_whole(self.directory / "head", digest.encode())
        failpoint("volume.commit.swapped")
        self._cached = digest, tree

    @contextlib.contextmanager
    def storing(self) -> Iterator[None]:
        """Objects put in this block are not collected before it ends."""
        with locked(self.directory / "in-use", shared=True):
            yield

    def _head(self) -> str:
        try:
            return (self.directory / "head").read_text()
        except FileNotFoundError:
            return ""

    def _load(self, digest: str) -> dict[str, Entry]:
        if not digest:
            return {}
        text = (self.directory / "snapshots" / digest).read_bytes()
        if hashlib.sha256(text).hexdigest() != digest:
            raise VolumeError(f"the volume {self.id} is damaged: snapshot {digest} was changed")
        return loaded(text)

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"

    # --- what nobody needs any more ----------------------------------------------------------------

    def collect(self) -> None:
        """Remove old snapshots, objects that none of the kept names, and what a crash left behind."""
        with contextlib.ExitStack() as stack:
            if not stack.enter_context(locked_if_free(self.directory / "in-use")):
                return  # somebody stores objects: another time
            stack.enter_context(locked(self._lock))
            kept = self._collect_snapshots()
            named = {
                entry.digest
                for digest in kept
                for entry in self._load(digest).values()
                if isinstance(entry, File)
            }
            for digest, path in self.contents.names():
                if digest not in named:
                    path.unlink(missing_ok=True)
            for path in self.directory.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def _collect_snapshots(self) -> list[str]:
        directory, head = self.directory / "snapshots", self._head()
        found = {path: path.stat().st_mtime for path in directory.iterdir()}
        newest = sorted(found, key=found.__getitem__, reverse=True)
        limit = time.time() - KEEP_SECONDS
        kept = [
            path.name
            for index, path in enumerate(newest)
            if not path.name.startswith(".") and index < KEEP_SNAPSHOTS and found[path] > limit
        ]
        if head and head not in kept:
            kept.append(head)
        for path in found:
            if path.name not in kept:
                path.unlink(missing_ok=True)
        return kept

    def remove(self) -> None:
        """Delete it all: as one step, then in earnest."""
        with locked(self._lock):
            gone = self.directory.with_name(f".{self.id}.{os.urandom(4).hex()}.gone")
            os.rename(self.directory, gone)
            failpoint("volume.remove.renamed")
        shutil.rmtree(gone, ignore_errors=True)
