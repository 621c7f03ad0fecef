"""Files of a sandbox: `sb.filesystem` and `sb.open`. Each operation is one small process inside."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from . import context
from .codec import to_plain
from .errors import ExecutionError, InvalidError, ResourceExhaustedError, error_named
from .face import BothContext, both
from .sandbox_process import CHUNK_BYTES, ContainerProcess
from .sandbox_spec import ProcessSpec
from .types import EMPTY, Payload

T = TypeVar("T", str, bytes)

MAX_OPEN_BYTES = 256 << 20  # of a file that is held in memory here
WITHIN = 3600.0  # seconds for one operation


@dataclass(frozen=True, slots=True)
class FileInfo:
    """`type`: file, directory, symlink or other. `size`: bytes. `modified`: seconds since 1970."""

    name: str
    path: str
    type: str
    size: int
    mode: int  # permission bits
    modified: float
    target: str | None  # of a link


class Filesystem:
    """Paths are absolute. Errors are Python's own: FileNotFoundError, IsADirectoryError, …"""

    def __init__(self, sandbox: str) -> None:
        self._sandbox = sandbox

    def __repr__(self) -> str:
        return f"<Filesystem of {self._sandbox}>"

    @both
    async def read_bytes(self, /, path: str) -> bytes:
        """The content of a file of at most 256 MiB; use `copy_to_local` for a larger one."""
        return await self._read(path)

    @both
    async def read_text(self, /, path: str) -> str:
        """The content of a UTF-8 file."""
        return (await self._read(path)).decode()

    @both
    async def write_bytes(self, /, data: bytes | bytearray | memoryview, path: str) -> None:
        """Write a file, at once or not at all; directories above it are made."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"write_bytes takes bytes, not {type(data).__name__}")
        await self._write(path, io.BytesIO(data))

    @both
    async def write_text(self, /, data: str, path: str) -> None:
        """Write a UTF-8 file, at once or not at all; directories above it are made."""
        if not isinstance(data, str):
            raise TypeError(f"write_text takes a text, not {type(data).__name__}")
        await self._write(path, io.BytesIO(data.encode()))

    @both
    async def copy_from_local(self, /, local: str | os.PathLike[str], path: str) -> None:
        """Copy a file of this machine into the sandbox."""
        with _local(local) as source:
            await self._write(path, source)

    @both
    async def copy_to_local(self, /, path: str, local: str | os.PathLike[str]) -> None:
        """Copy a file of the sandbox to this machine, at once or not at all."""
        target = Path(local)
        draft = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                await self._run({"do": "read", "path": _absolute(path)}, into=file)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    @both
    async def list_files(self, /, path: str) -> list[FileInfo]:
        """What lies in a directory, by name."""
        return await self._list(path)

    @both
    async def stat(self, /, path: str) -> FileInfo:
        """One file, directory or link (which is not followed)."""
        return FileInfo(**await self._answer({"do": "stat", "path": _absolute(path)}))

    @both
    async def make_directory(self, /, path: str, *, parents: bool = True) -> None:
        """Make a directory; with `parents` also those above it, and it may exist."""
        await self._make(path, parents)

    @both
    async def remove(self, /, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory: an empty one, or with `recursive` all that is in it."""
        await self._remove(path, recursive)

    # --- inside --------------------------------------------------------------------------------------

    async def _read(self, path: str) -> bytes:
        content = io.BytesIO()
        await self._run({"do": "read", "path": _absolute(path)}, into=content, most=MAX_OPEN_BYTES)
        return content.getvalue()

    async def _write(self, path: str, source: Any, *, append: bool = False) -> None:
        await self._run({"do": "write", "path": _absolute(path), "append": append}, source=source)

    async def _list(self, path: str) -> list[FileInfo]:
        found = await self._answer({"do": "list", "path": _absolute(path)})
        return [FileInfo(**each) for each in found]

    async def _make(self, path: str, parents: bool) -> None:
        await self._answer({"do": "make", "path": _absolute(path), "parents": parents})

    async def _remove(self, path: str, recursive: bool) -> None:
        await self._answer({"do": "remove", "path": _absolute(path), "recursive": recursive})

    async def _answer(self, request: dict[str, Any]) -> Any:
        said = io.BytesIO()
        await self._run(request, into=said)
        return json.loads(said.getvalue())

    async def _run(
        self,
        request: dict[str, Any],
        *,
        source: Any = None,
        into: Any = None,
        most: int | None = None,
    ) -> None:
        """Start the tool, give it `source`, take its output, raise its error."""
        spec = ProcessSpec((), tool=json.dumps(request), workdir="/", timeout=WITHIN)
        reply = await context.ask("sandbox.exec", id=self._sandbox, spec=to_plain(spec))
        process: ContainerProcess[bytes] = ContainerProcess(
            self._sandbox, str(reply.fields["process"]), text=False
        )
        try:
            while source is not None and (part := source.read(CHUNK_BYTES)):
                await context.ask("sandbox.write", Payload(part), **process._fields, eof=False)
            await context.ask("sandbox.write", EMPTY, **process._fields, eof=True)
        except ValueError:
            pass  # it has ended before it took all: it says why
        taken = 0
        while data := await process.stdout._chunk():
            taken += len(data)
            if most is not None and taken > most:
                raise ResourceExhaustedError(f"{request['path']} is larger than {most >> 20} MiB")
            if into is not None:
                into.write(data)
        if await process._join(None):
            said = b""
            while data := await process.stderr._chunk():
                said += data
            raise _error(said)


def _local(path: str | os.PathLike[str]) -> io.BufferedReader:
    return Path(path).open("rb")


def _error(said: bytes) -> Exception:
    try:
        words = json.loads(said)
        return error_named(words["error"], words["message"])
    except (ValueError, KeyError, TypeError):
        tail = said.decode(errors="replace").strip().splitlines()[-1:]
        return ExecutionError(f"the file operation failed: {''.join(tail) or 'it was ended'}")


def _absolute(path: object) -> str:
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise InvalidError(f"a path in a sandbox is absolute, such as '/tmp/x', not {path!r}")
    return path


class SandboxFile(BothContext["SandboxFile[T]"], Generic[T]):
    """An open file of a sandbox. Its content is here; `flush` and `close` store what was written."""

    def __init__(self, files: Filesystem, path: str, mode: str, content: bytes) -> None:
        self._files, self._path, self._mode = files, path, mode
        self._content: Any = io.BytesIO(content)
        if "b" not in mode:
            self._content = io.TextIOWrapper(self._content, "utf-8", newline="")
        if "a" in mode:
            self._content.seek(0, os.SEEK_END)
        self._changed = "w" in mode or "x" in mode

    @property
    def closed(self) -> bool:
        return bool(self._content.closed)

    def _need(self, letter: str) -> Any:
        if letter not in self._mode and "+" not in self._mode:
            doing = "reading" if letter == "r" else "writing"
            raise io.UnsupportedOperation(f"{self._path} is not open for {doing}")
        return self._content

    @both
    async def read(self, /, n: int | None = None) -> T:
        """Up to `n` characters or bytes, by default the rest."""
        return self._need("r").read(-1 if n is None else n)  # type: ignore[no-any-return]

    @both
    async def readline(self, /) -> T:
        """The next line; empty at the end."""
        return self._need("r").readline()  # type: ignore[no-any-return]

    @both
    async def readlines(self, /) -> list[T]:
        """The lines that are left."""
        return self._need("r").readlines()  # type: ignore[no-any-return]

    @both
    async def write(self, /, data: T) -> None:
        """Write where the file stands."""
        writable = next((letter for letter in "wax" if letter in self._mode), "w")
        self._need(writable).write(data)
        self._changed = True

    @both
    async def seek(self, /, offset: int, whence: int = 0) -> None:
        """Go to a position, in bytes."""
        self._content.seek(offset, whence)

    @both
    async def flush(self, /) -> None:
        """Store what was written."""
        await self._store()

    @both
    async def close(self, /) -> None:
        """Store what was written, and be done."""
        await self._close()

    async def _store(self) -> None:
        if not self._changed:
            return
        self._content.flush()
        raw = getattr(self._content, "buffer", self._content)
        await self._files._write(self._path, io.BytesIO(raw.getvalue()))
        self._changed = False

    async def _close(self) -> None:
        if not self.closed:
            await self._store()
            self._content.close()

    async def _enter(self) -> SandboxFile[T]:
        return self

    async def _leave(self, error: BaseException | None) -> None:
        await self._close()


async def opened(files: Filesystem, path: str, mode: str) -> SandboxFile[Any]:
    letters = sorted(mode.replace("b", "").replace("t", "").replace("+", ""))
    if letters not in (["r"], ["w"], ["a"], ["x"]) or ("b" in mode and "t" in mode):
        raise InvalidError(f"{mode!r} is no mode of a file, such as 'r', 'w', 'a' or 'rb'")
    content = b""
    if "w" not in mode:
        try:
            content = await files._read(path)
        except FileNotFoundError:
            if "r" in mode:
                raise
        else:
            if "x" in mode:
                raise FileExistsError(f"{path} exists in the sandbox")
    return SandboxFile(files, _absolute(path), mode, content)
