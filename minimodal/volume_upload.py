"""Uploads into a volume: collected in a block, sent at its end, applied as one commit.

Files are read where this runs (the user's machine, or a container) and sent in pieces.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from . import context
from .errors import CallLost, InvalidError, NotRunningError
from .face import BothContext
from .types import Payload
from .volume_paths import inside, stays_inside

if TYPE_CHECKING:
    from .volume import Volume

PIECE_BYTES = 8 << 20


class _Item(NamedTuple):
    """One file to be: `source` is a path, an open file, or None for a link or a directory."""

    path: str
    source: Path | IO[bytes] | None
    target: str | None = None  # of a link
    mode: int | None = None


class BatchUpload(BothContext["BatchUpload"]):
    """The block of `Volume.batch_upload`."""

    def __init__(self, volume: Volume, force: bool) -> None:
        self._volume = volume
        self._force = force
        self._items: list[_Item] = []
        self.sent: Callable[[int], object] = lambda count: None
        """Called with the bytes of each piece that was sent: for a progress bar."""

    @property
    def size(self) -> int:
        """Bytes of what was put here as a path."""
        paths = [item.source for item in self._items if isinstance(item.source, Path)]
        return sum(path.stat().st_size for path in paths)

    def put_file(
        self,
        local_file: str | os.PathLike[str] | IO[bytes],
        remote_path: str | os.PathLike[str],
        mode: int | None = None,
    ) -> None:
        """Upload one file, given as a path or an open binary file (such as a BytesIO).

        A `remote_path` that ends in `/` is the directory to put it in. Raises FileNotFoundError.
        """
        remote = os.fspath(remote_path)
        if isinstance(local_file, (str, os.PathLike)):
            source = Path(local_file)
            if not source.is_file():
                raise FileNotFoundError(f"there is no file {source}")
            _require_regular(source)
            if remote.endswith("/"):
                remote += source.name
            self._items.append(_Item(_file_path(remote), source, mode=mode))
            return
        if not hasattr(local_file, "read") or isinstance(local_file, io.TextIOBase):
            raise InvalidError(f"put_file takes a path or a binary file, not {local_file!r}")
        self._items.append(_Item(_file_path(remote), local_file, mode=mode))

    def put_directory(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str | os.PathLike[str],
        recursive: bool = True,
    ) -> None:
        """Upload what is in a directory. Links within it are kept as links.

        Raises NotADirectoryError, and InvalidError for a link that leads out of it, a FIFO or a device.
        """
        root = Path(local_path)
        if not root.is_dir():
            raise NotADirectoryError(f"{root} is no directory")
        self._items += _items_of(root, inside(os.fspath(remote_path)), recursive)

    # --- at the end of the block -------------------------------------------------------------------

    async def _enter(self) -> BatchUpload:
        return self

    async def _leave(self, error: BaseException | None) -> None:
        if error is None:
            await self._apply()

    async def _apply(self) -> None:
        if not self._items:
            return
        upload = str((await self._volume._ask("upload_begin")).fields["upload"])
        try:
            described = []
            for number, item in enumerate(self._items):
                described.append(await self._send(upload, number, item))
            packed = Payload(json.dumps(described).encode())
            await context.ask("volume.upload_end", packed, upload=upload, force=self._force)
        except BaseException as error:
            if isinstance(error, Exception):  # else the engine does it when the upload is forgotten
                try:
                    await context.ask("volume.upload_abort", upload=upload)
                except (NotRunningError, CallLost):
                    pass  # it is gone with its uploads
            raise

    async def _send(self, upload: str, number: int, item: _Item) -> dict[str, Any]:
        fields: dict[str, Any] = {"path": item.path, "target": item.target, "number": None}
        if item.source is None:
            return fields
        fields |= {"number": number, "mode": item.mode}
        if isinstance(item.source, Path):
            with open(item.source, "rb") as file:  # noqa: ASYNC230  # runs in the caller's thread
                status = os.fstat(file.fileno())
                if item.mode is None:
                    fields["mode"] = stat.S_IMODE(status.st_mode)
                await self._send_pieces(upload, number, file)
            return {**fields, "mtime": status.st_mtime_ns}
        await self._send_pieces(upload, number, item.source)
        return fields

    async def _send_pieces(self, upload: str, number: int, file: IO[bytes]) -> None:
        offset = 0
        while True:
            piece = file.read(PIECE_BYTES)
            if not isinstance(piece, bytes):
                raise InvalidError(f"{file!r} is no binary file: open it with mode 'rb'")
            if not piece and offset:
                return
            await context.ask(
                "volume.upload_piece", Payload(piece), upload=upload, number=number, offset=offset
            )
            offset += len(piece)
            self.sent(len(piece))
            if not piece:
                return


def _items_of(root: Path, remote: str, recursive: bool) -> Iterator[_Item]:
    for directory, names, files in os.walk(root):
        here = Path(directory)
        relative = here.relative_to(root).as_posix()
        prefix = "" if relative == "." else relative + "/"
        links = [name for name in names if (here / name).is_symlink()]
        for name in sorted([*files, *links]):
            path = here / name
            if path.is_symlink():
                target = os.readlink(path)
                if not stays_inside(prefix + name, target):
                    raise InvalidError(
                        f"{path} is a link that leads out of {root} (to {target}). Copy what it leads "
                        "to, or put_file() it by itself."
                    )
                yield _Item(inside(f"{remote}/{prefix}{name}"), None, target)
                continue
            _require_regular(path)
            yield _Item(_file_path(f"{remote}/{prefix}{name}"), path)
        if prefix and not files and not names:
            yield _Item(inside(f"{remote}/{prefix}"), None)
        if not recursive:
            return


def _require_regular(path: Path) -> None:
    if not stat.S_ISREG(path.stat().st_mode):
        raise InvalidError(
            f"{path} is no regular file: a volume holds files, directories and links"
        )


def _file_path(remote: str) -> str:
    path = inside(remote)
    if not path:
        raise InvalidError(f"{remote!r} is the volume itself: say which file it shall be")
    return path
