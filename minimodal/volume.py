"""`Volume`: files that outlive containers, and that many containers share.

A container sees a volume as it was when the container started, in a working copy of its own. What it
writes is seen by others once it is committed (by `commit()`, every few seconds, and when the
container ends) and they have called `reload()` or started.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any, ClassVar, TypeVar

from . import context
from .errors import InvalidError
from .face import Both, BothIterator, both, both_function
from .named import EmptyObjectsOf, Handle, check_name
from .volume_paths import FileEntry, FileEntryType, inside
from .volume_reading import Chunks, Entries, open_below
from .volume_upload import BatchUpload

if TYPE_CHECKING:
    from .types import VolumeMount

V = TypeVar("V", bound="Volume")


class Volume(Handle):
    """A directory of files: `@app.function(volumes={"/data": Volume.from_name("data")})`.

    A `path` of it starts at its root, `remote_path` too; a `local_path` is this machine's. Commits
    are atomic. Two containers that change different files both win; of the same file the
    last commit is kept whole.
    """

    _kind: ClassVar[str] = "volume"
    objects: ClassVar[EmptyObjectsOf] = EmptyObjectsOf()
    delete: ClassVar[Both[..., None]]
    rename: ClassVar[Both[..., None]]

    _read_only = False
    _sub_path = ""

    @classmethod
    def from_name(
        cls: type[V],
        name: str,
        *,
        create_if_missing: bool = False,
        environment_name: str | None = None,
        version: Any = None,
    ) -> V:
        """The volume of that name in this home. Does no I/O.

        Using it raises NotFoundError where there is none, unless `create_if_missing`. `version` is
        accepted for Modal's sake; there is one kind.
        """
        del environment_name, version
        return cls._make(check_name("volume", name), create=create_if_missing)

    def read_only(self: V) -> V:
        """The same volume, mounted so that nothing can be written. Cheap for large files."""
        return self.with_mount_options(read_only=True)

    def with_mount_options(
        self: V, *, read_only: bool | None = None, sub_path: str | None = None
    ) -> V:
        """The same volume, mounted with `read_only`, or only its directory `sub_path`."""
        other = type(self)._make(self._name, create=self._create, object_id=self._id)
        other._read_only = self._read_only if read_only is None else bool(read_only)
        other._sub_path = self._sub_path if sub_path is None else inside(sub_path)
        return other

    async def _mount_at(self, target: str) -> VolumeMount:
        from .types import VolumeMount

        return VolumeMount(target, await self._resolve(), self._read_only, self._sub_path)

    def _volume_id(self) -> str:
        return self.object_id

    def _extras(self) -> dict[str, Any]:
        return {"_read_only": self._read_only, "_sub_path": self._sub_path}

    # --- in a container ----------------------------------------------------------------------------

    @both
    async def commit(self, /) -> None:
        """Let others see what this container has written to the volume.

        Raises VolumeError naming a file that a volume cannot hold (a FIFO, a link that leads out), or
        the lack of space; then nothing is committed. Raises InvalidError where it is not mounted.
        """
        await self._mounted("commit")
        await self._ask("commit")

    @both
    async def reload(self, /) -> None:
        """See what others have committed. What was written here is committed before.

        Raises RuntimeError where a file of the volume is open, or a working directory is in it.
        Raises InvalidError where it is not mounted.
        """
        for target in await self._mounted("reload"):
            used = next(open_below(target), None)
            if used is not None:
                raise RuntimeError(
                    f"there are open files preventing the operation: {used}. Close them, and leave "
                    f"{target}, before reload()."
                )
        await self._ask("reload")

    async def _mounted(self, used: str) -> list[str]:
        targets: list[str] = (await self._ask("mounted")).fields["targets"]
        if not targets:
            raise InvalidError(
                f"{self!r}.{used}() is for a container that mounts it, and none of its mounts is here. "
                "Elsewhere each operation is committed at once, and sees what is committed."
            )
        return targets

    # --- reading -----------------------------------------------------------------------------------

    @both
    async def listdir(self, /, path: str = "/", *, recursive: bool = False) -> list[FileEntry]:
        """What is in a directory; with `recursive` also below. A file's path gives that one entry.

        Raises FileNotFoundError.
        """
        return await self._listed(path, recursive)

    def iterdir(self, path: str = "/", *, recursive: bool = True) -> BothIterator[FileEntry]:
        """The entries of `listdir`, for `for` and `async for`; with those below by default."""
        reader = Entries(self, path, recursive)
        return BothIterator(reader.advance, reader.close)

    def read_file(self, path: str) -> BothIterator[bytes]:
        """The committed content of a file in pieces of some MiB, for `for` and `async for`.

        Raises FileNotFoundError or IsADirectoryError, and VolumeError where the stored content is
        damaged: wrong bytes are never given.
        """
        reader = Chunks(self, path)
        return BothIterator(reader.advance, reader.close)

    @both
    async def read_file_into_fileobj(self, /, path: str, fileobj: IO[bytes]) -> int:
        """Write a file's content into `fileobj`, an open binary file; how many bytes. Raises as `read_file`."""
        return await self._read_into(path, fileobj)

    @both
    async def get_file(self, /, remote_path: str, local_path: str | os.PathLike[str]) -> None:
        """Copy a file of the volume to this machine. Raises as `read_file`."""
        with open(local_path, "wb") as file:  # noqa: ASYNC230  # runs in the caller's thread
            await self._read_into(remote_path, file)

    @both
    async def list_files(self, /, path: str = "/") -> list[str]:
        """The paths of all files in or below a directory. Raises FileNotFoundError."""
        entries = await self._listed(path, True)
        return [entry.path for entry in entries if entry.type is FileEntryType.FILE]

    async def _listed(self, path: str, recursive: bool) -> list[FileEntry]:
        reply = await self._ask("listdir", path=inside(path), recursive=recursive)
        return [
            FileEntry(name, FileEntryType(kind), mtime, size)
            for name, kind, mtime, size in json.loads(bytes(reply.payload.data))
        ]

    async def _read_into(self, path: str, file: IO[bytes]) -> int:
        reader, count = Chunks(self, path), 0
        while True:
            try:
                piece = await reader.advance()
            except StopAsyncIteration:
                return count
            count += len(piece)
            file.write(piece)

    # --- changing; each is committed at once -------------------------------------------------------

    def batch_upload(self, force: bool = False) -> BatchUpload:
        """Upload files, all at the end of the block and as one commit (`with` or `async with`).

        Raises FileExistsError there for a file that exists, unless `force`.
        """
        return BatchUpload(self, force)

    @both
    async def put_file(
        self, /, local_path: str | os.PathLike[str] | IO[bytes], remote_path: str
    ) -> None:
        """Copy one file into the volume, also over another one."""
        upload = BatchUpload(self, force=True)
        upload.put_file(local_path, remote_path)
        await upload._apply()

    @both
    async def remove_file(self, /, path: str, recursive: bool = False) -> None:
        """Remove a file; with `recursive` also a directory with all that is below.

        Raises FileNotFoundError, and IsADirectoryError without `recursive`.
        """
        await self._ask("remove_file", path=inside(path), recursive=recursive)

    @both
    async def copy_files(
        self, /, src_paths: Sequence[str], dst_path: str, recursive: bool = False
    ) -> None:
        """Copy `src_paths` within the volume, without moving bytes. With several `dst_path` is a directory.

        Raises FileNotFoundError, IsADirectoryError for a directory without `recursive`, and
        NotADirectoryError where `dst_path` would have to be one; InvalidError.
        """
        if isinstance(src_paths, str) or not src_paths:
            raise InvalidError("Volume.copy_files takes a list of one path or more")
        await self._ask(
            "copy",
            sources=[inside(path) for path in src_paths],
            target=inside(dst_path),
            into=str(dst_path).endswith("/"),
            recursive=recursive,
        )


async def _delete(name: str, *, environment_name: str | None = None, force: bool = False) -> None:
    """Remove the volume `name` and all its files.

    Raises NotFoundError, and VolumeError while a container uses it, unless `force`: a container's
    own view stays whole, and what it writes is lost.
    """
    del environment_name
    check_name("volume", name)
    await context.ask("volume.remove", name=name, missing_ok=False, force=force)


async def _rename(old_name: str, new_name: str, *, environment_name: str | None = None) -> None:
    """Give the volume `old_name` the name `new_name`. Containers that use it go on. Raises NotFoundError,
    AlreadyExistsError."""
    del environment_name
    check_name("volume", old_name)
    check_name("volume", new_name)
    await context.ask("volume.rename", name=old_name, new_name=new_name)


Volume.delete = both_function(_delete)
Volume.rename = both_function(_rename)
