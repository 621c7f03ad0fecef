"""The volumes of a home: by id and by name, made, renamed, deleted. Blocking; see volume_store.py.

Beside the volumes lie the working copies of containers (`.views`) and files on their way
(`.uploads`); each is named for its engine, and swept when that is dead.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence

from minimodal.engine_lock import is_alive
from minimodal.errors import AlreadyExistsError, NotFoundError, VolumeError
from minimodal.home import Home
from minimodal.types import new_id

from .file_lock import locked
from .volume_content import wrapped
from .volume_store import VolumeRecord, VolumeStore

log = logging.getLogger("minimodal.engine")


class VolumeFiles:
    """`engine` owns the ephemeral volumes and the views that are made here."""

    def __init__(self, home: Home, engine: str) -> None:
        self._home = home
        self.engine = engine
        self.directory = home.volumes
        self.views, self.uploads = self.directory / ".views", self.directory / ".uploads"
        for directory in (self.directory, self.views, self.uploads):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self.directory / ".lock"
        self._stores: dict[str, VolumeStore] = {}
        self._mutex = threading.Lock()

    def store(self, volume_id: str) -> VolumeStore:
        """Raises NotFoundError."""
        directory = self.directory / volume_id
        if (
            "/" in volume_id
            or volume_id.startswith(".")
            or not (directory / "volume.json").exists()
        ):
            raise NotFoundError(
                f"there is no volume {volume_id}: it was deleted, or its block has ended"
            )
        with self._mutex:
            if volume_id not in self._stores:
                self._stores[volume_id] = VolumeStore(directory)
            return self._stores[volume_id]

    def has(self, volume_id: str) -> bool:
        return (self.directory / volume_id / "volume.json").exists()

    def list(self) -> tuple[VolumeRecord, ...]:
        return tuple(record for record in self._records() if record.name is not None)

    def find(self, name: str) -> VolumeRecord:
        found = next((record for record in self._records() if record.name == name), None)
        if found is None:
            raise NotFoundError(
                f"there is no volume {name!r}; from_name(…, create_if_missing=True) makes it"
            )
        return found

    def create(self, name: str, *, exist_ok: bool) -> VolumeRecord:
        with locked(self._lock):
            try:
                found = self.find(name)
            except NotFoundError:
                return self._make(name)
            if exist_ok:
                return found
            raise AlreadyExistsError(f"there is a volume {name!r} already")

    def create_ephemeral(self) -> VolumeRecord:
        return self._make(None)

    def rename(self, name: str, new_name: str) -> None:
        with locked(self._lock):
            record = self.find(name)
            if any(other.name == new_name for other in self._records()):
                raise AlreadyExistsError(f"there is a volume {new_name!r} already")
            self.store(record.id).save(
                VolumeRecord(record.id, new_name, record.created, record.engine)
            )

    def remove(self, volume_id: str, *, force: bool = False) -> None:
        """Raises NotFoundError, and VolumeError while a container uses it, unless `force`."""
        with locked(self._lock):
            store = self.store(volume_id)
            users = self._users(volume_id)
            if users and not force:
                raise VolumeError(
                    f"the volume {store.record.name or volume_id} is in use by {', '.join(users)}. Stop "
                    "what runs there, or force it: the container's own view then stays whole, and what "
                    "it writes is lost."
                )
            store.remove()
            with self._mutex:
                self._stores.pop(volume_id, None)

    def sweep(self) -> None:
        """Remove what dead engines left: views, uploads, ephemeral volumes, half-written files."""
        for path in (*self.views.iterdir(), *self.uploads.iterdir()):
            if not self._is_alive(path.name.partition(".")[0]):
                shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob(".*.gone"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.directory.glob(".*.new"):
            if not self._is_alive(path.name[1:].partition(":")[0]):
                shutil.rmtree(path, ignore_errors=True)
        for record in self._records():
            store = self.store(record.id)
            try:
                if record.name is None and not self._is_alive(record.engine):
                    store.remove()
                else:
                    store.collect()
            except (
                VolumeError,
                OSError,
            ) as error:  # who uses it is told; others must be able to start
                log.warning("the volume %s could not be cleaned up: %s", record.name, error)

    def remove_own(self) -> None:
        """The engine stops: its ephemeral volumes end with it."""
        for record in self._records():
            if record.name is None and record.engine == self.engine:
                self.remove(record.id, force=True)

    def _users(self, volume_id: str) -> Sequence[str]:
        """The containers that have a view of it now."""
        found = []
        for path in self.views.glob(f"*.{volume_id}"):
            engine, container, *_ = path.name.split(".")
            if self._is_alive(engine):
                found.append(container)
        return found

    def _records(self) -> Iterator[VolumeRecord]:
        for path in sorted(self.directory.glob("vo-*")):
            try:
                yield self.store(path.name).record
            except (NotFoundError, FileNotFoundError):
                continue  # deleted meanwhile

    def _make(self, name: str | None) -> VolumeRecord:
        """Complete under another name first: what has a volume's name is whole."""
        record = VolumeRecord(new_id("vo"), name, time.time(), self.engine)
        part = self.directory / f".{self.engine}:{record.id}.new"
        with wrapped(self.directory, f"volume {name or record.id}"):
            part.mkdir(mode=0o700)
            VolumeStore(part).save(record)
            os.rename(part, self.directory / record.id)
        return record

    def _is_alive(self, engine: str) -> bool:
        return engine == self.engine or is_alive(self._home, engine)
