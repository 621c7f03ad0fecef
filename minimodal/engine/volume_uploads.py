"""Files on their way into a volume: received piece by piece, then applied as one commit. Blocking."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minimodal.errors import InvalidError, NotFoundError, VolumeError
from minimodal.types import new_id
from minimodal.volume_paths import inside, stays_inside

from .volume_content import wrapped
from .volume_files import VolumeFiles
from .volume_store import VolumeStore
from .volume_tree import EMPTY_DIRECTORY, Changes, Directory, Entry, File, Link

MAX_UPLOADS = 1_000
_UPLOAD = re.compile(r"up-[0-9a-f]{16}\Z")


class Uploads:
    """The uploads of one engine, by id."""

    def __init__(self, files: VolumeFiles) -> None:
        self._files = files
        self._open: dict[str, str] = {}  # upload: volume

    def begin(self, volume_id: str) -> str:
        if len(self._open) >= MAX_UPLOADS:
            raise VolumeError(f"{MAX_UPLOADS} uploads are open already")
        store = self._files.store(volume_id)
        upload = new_id("up")
        with wrapped(store.directory, f"an upload to volume {volume_id}"):
            self._directory(upload).mkdir(mode=0o700)
        self._open[upload] = volume_id
        return upload

    def piece(self, upload: str, number: int, offset: int, data: Any) -> None:
        store, directory = self._of(upload)
        with wrapped(store.directory, f"an upload to volume {store.id}"):
            fd = os.open(
                directory / str(number),
                os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW,
                0o600,
            )
            try:
                view = memoryview(data)
                while view:
                    written = os.pwrite(fd, view, offset)
                    view, offset = view[written:], offset + written
            finally:
                os.close(fd)

    def end(self, upload: str, described: bytes, force: bool) -> None:
        """Commit the files. Raises FileExistsError for one that exists, unless `force`."""
        store, directory = self._of(upload)
        try:
            with store.storing():
                entries: dict[str, Entry] = {}
                for fields in json.loads(described):
                    path = inside(fields["path"])
                    if path:
                        entries[path] = _entry(store, directory, path, fields)
                store.apply(lambda tree: _checked(tree, entries, force))
        finally:
            self.abort(upload)

    def abort(self, upload: str) -> None:
        if self._open.pop(upload, None) is not None:
            shutil.rmtree(self._directory(upload), ignore_errors=True)

    def abort_all(self) -> None:
        for upload in list(self._open):
            self.abort(upload)

    def _of(self, upload: str) -> tuple[VolumeStore, Path]:
        if not _UPLOAD.match(upload) or upload not in self._open:
            raise NotFoundError(f"there is no upload {upload!r}: it has ended")
        return self._files.store(self._open[upload]), self._directory(upload)

    def _directory(self, upload: str) -> Path:
        return self._files.uploads / f"{self._files.engine}.{upload}"


def _entry(store: VolumeStore, directory: Path, path: str, fields: Mapping[str, Any]) -> Entry:
    target, number = fields.get("target"), fields.get("number")
    if target is not None:
        if not stays_inside(path, str(target)):
            raise InvalidError(f"{path!r} would be a link out of the volume, to {target!r}")
        return Link(str(target))
    if number is None:
        return EMPTY_DIRECTORY
    with open(directory / str(int(number)), "rb") as file:
        digest, size = store.contents.put(file.fileno(), path)
    mode, mtime = fields.get("mode"), fields.get("mtime")
    executable = bool(int(mode or 0) & stat.S_IXUSR)
    return File(digest, size, int(mtime) if mtime is not None else time.time_ns(), executable)


def _checked(tree: Mapping[str, Entry], entries: dict[str, Entry], force: bool) -> Changes:
    if not force:
        for path, entry in entries.items():
            taken = tree.get(path)
            if taken is not None and not isinstance(taken, Directory):
                raise FileExistsError(f"{path!r} is in the volume already; force=True replaces it")
            del entry
    return entries
