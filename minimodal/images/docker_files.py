"""The user's files on their way into a Docker image: staged and checked, then packed as tar."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minimodal.engine_lock import is_alive
from minimodal.home import Home
from minimodal.layers import LocalFile

from .layer_store import remove_tree
from .staging import place


@contextmanager
def staging(home: Home, engine: str) -> Iterator[Path]:
    """A directory for one step of an engine, removed at the end of the block."""
    parent = home.cache / "staging"
    parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(prefix=f"{engine}.", dir=parent) as directory:
        yield Path(directory)


def sweep_staging(home: Home) -> None:
    """Remove what engines left that were killed in the middle of a step. Blocking."""
    for directory in (home.cache / "staging").glob("*.*"):
        if not is_alive(home, directory.name.partition(".")[0]):
            remove_tree(directory)


def open_root() -> bytes:
    """A tar that lets everybody look into /root: containers do not run as root."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo("root")
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
    return packed.getvalue()


@contextmanager
def archive(files: Iterable[LocalFile], directory: Path) -> Iterator[IO[bytes]]:
    """An open tar of the files, owned by root. Blocking. `directory` is an empty one to work in.

    Without entries for directories: those of the image keep their owner and mode.
    """
    (directory / "files").mkdir()
    place(files, directory / "files")
    with open(directory / "files.tar", "w+b") as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in _files_below(directory / "files"):
                tar.add(path, path.relative_to(directory / "files"), filter=_as_root)
        packed.seek(0)
        yield packed


def _files_below(root: Path) -> Iterator[Path]:
    for folder, directories, names in os.walk(root):
        links = [name for name in directories if (Path(folder) / name).is_symlink()]
        for name in (*names, *links):
            yield Path(folder) / name


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry
