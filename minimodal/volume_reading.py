"""Reading from a volume piece by piece, and what of it is open in this container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .volume_paths import FileEntry, inside

if TYPE_CHECKING:
    from .volume import Volume


class Entries:
    def __init__(self, volume: Volume, path: str, recursive: bool) -> None:
        self._volume, self._path, self._recursive = volume, path, recursive
        self._left: list[FileEntry] | None = None

    async def advance(self) -> FileEntry:
        if self._left is None:
            self._left = (await self._volume._listed(self._path, self._recursive))[::-1]
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()

    async def close(self) -> None:
        """Nothing is open."""


class Chunks:
    """Reads one version of a file: a commit meanwhile does not mix into it."""

    def __init__(self, volume: Volume, path: str) -> None:
        self._volume, self._path = volume, inside(path)
        self._found: Any = None
        self._next = 0

    async def advance(self) -> bytes:
        if self._found is None:
            self._found = (await self._volume._ask("stat", path=self._path)).fields
        if self._next >= self._found["chunks"]:
            raise StopAsyncIteration
        reply = await self._volume._ask(
            "read", path=self._path, digest=self._found["digest"], index=self._next
        )
        self._next += 1
        return bytes(reply.payload.data)

    async def close(self) -> None:
        """Nothing is open."""


def open_below(target: str) -> Iterator[str]:
    """Open files and working directories below `target`, of all processes of this container."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [process / "cwd", *(process / "fd").iterdir()]
        except OSError:
            continue  # it ended, or is not ours to look at
        for link in links:
            try:
                found = os.readlink(link)
            except OSError:
                continue
            if found == target or found.startswith(target + "/"):
                kind = (
                    "the working directory of process" if link.name == "cwd" else "open in process"
                )
                yield f"{found} ({kind} {process.name})"
