"""Volumes and views as containers have them, without the containers; fixtures in conftest.py."""

from __future__ import annotations

from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_store import VolumeStore
from minimodal.engine.volume_tree import File
from minimodal.engine.volume_view import View, make_view

ENGINE = "en-00000000000000ff"


class Views:
    """Views as containers have them, without the containers."""

    def __init__(self, files: VolumeFiles, store: VolumeStore) -> None:
        self._files, self._store, self._count = files, store, 0

    def new(self, *, read_only: bool = False, prefix: str = "") -> View:
        self._count += 1
        directory = self._files.views / f"{ENGINE}.ct-{self._count}.0.{self._store.id}"
        return make_view(self._store, directory, prefix, "/data", read_only)


def committed(store: VolumeStore) -> dict[str, bytes]:
    """All that a reader would be given."""
    return {path: read(store, path) for path, e in store.tree().items() if isinstance(e, File)}


def read(store: VolumeStore, path: str) -> bytes:
    entry = store.tree()[path]
    assert isinstance(entry, File)
    chunks = -(-entry.size // (4 << 20))
    return b"".join(store.contents.chunk(entry.digest, index, path) for index in range(chunks))
