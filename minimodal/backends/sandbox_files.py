"""The files of a running bubblewrap sandbox as a layer of the store.

What a sandbox can write lies in memory of its own, which only it can see: a process inside packs it,
and here it is unpacked. The archive comes from code that nobody trusts, so nothing in it is followed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING

from anyio import EndOfStream, to_thread

from minimodal.errors import BuildError, ResourceExhaustedError
from minimodal.home import Home
from minimodal.images.layer_store import LayerStore

from . import inner_tool
from .rootfs import RESERVED, SYSTEM

if TYPE_CHECKING:
    from .sandbox import Sandbox

MAX_BYTES = 8 << 30
WRITABLE = ("root", "home")


async def keep_files(
    home: Home, uid: int, sandbox: Sandbox, digest: str, meta: Mapping[str, str]
) -> None:
    """Commit what the sandbox may write to (/root, /home, the image's own directories) as a layer.

    /tmp, /var/tmp and /run are no part of it. Raises BuildError.
    """
    store, image = LayerStore(home), sandbox.image
    below = await to_thread.run_sync(store.stack, image.name)
    tops = {name for layer in below for name in layer.top_directories()}
    names = [*WRITABLE, *sorted(tops - {*SYSTEM, *RESERVED, *WRITABLE})]
    owner = uid if os.geteuid() == 0 else None
    request = inner_tool.command(image.python, "pack", directories=[f"/{name}" for name in names])
    with TemporaryFile() as archive:
        process = await sandbox.exec(request, env={}, workdir="/")
        with suppress(EndOfStream):
            while archive.tell() < MAX_BYTES:
                archive.write(await process.stdout.receive(1 << 20))
        if archive.tell() >= MAX_BYTES:
            await process.kill()
            raise ResourceExhaustedError(f"a snapshot may have {MAX_BYTES >> 30} GiB")
        if await process.wait() != 0:
            raise BuildError("the sandbox's files could not be packed: it ended, or its Python did")
        archive.seek(0)

        def commit() -> None:
            with store.draft() as draft:
                try:
                    unpack(archive, draft.files, owner)
                except (tarfile.TarError, ValueError, KeyError) as error:
                    raise BuildError(f"the sandbox's files cannot be kept: {error}") from error
                store.commit(draft, digest, image.name, meta)

        await to_thread.run_sync(commit)


def unpack(archive: IO[bytes], root: Path, uid: int | None) -> None:
    """Files, directories and links, with permissions and no other powers. Raises ValueError."""
    with tarfile.open(fileobj=archive, mode="r:") as members:
        for member in members:
            parts = PurePosixPath(member.name).parts
            if not parts or ".." in parts or parts[0] == "/":
                raise ValueError(f"{member.name!r} is no path inside")
            place = root
            for part in parts[:-1]:
                place = place / part
                if place.is_symlink() or not place.is_dir():
                    raise ValueError(f"{member.name!r} lies in what is no directory")
            _put(members, member, place / parts[-1], uid)


def _put(members: tarfile.TarFile, member: tarfile.TarInfo, place: Path, uid: int | None) -> None:
    if os.path.lexists(place):
        raise ValueError(f"{member.name!r} is there twice")
    if member.isdir():
        place.mkdir()
        if "/" in member.name:  # what was removed from a lower layer's directory stays removed
            with suppress(OSError):
                os.setxattr(place, "user.overlay.opaque", b"y")
    elif member.issym():
        os.symlink(member.linkname, place)
    elif member.isreg() or member.islnk():
        source = members.extractfile(member)  # of a hard link: the file that it names
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as target:
            while source is not None and (data := source.read(1 << 20)):
                target.write(data)
    else:
        return  # a device, a pipe, a socket
    if uid is not None:
        os.chown(place, uid, uid, follow_symlinks=False)
    if not member.issym():
        os.chmod(place, member.mode & 0o777 | (0o700 if member.isdir() else 0))
        os.utime(place, (member.mtime, member.mtime))
