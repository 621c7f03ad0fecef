"""A Docker engine that sees another machine's files: on another host, or in a virtual machine.

Nothing of this machine can be mounted there. So the agent's connections travel over the stdin and
stdout of its container (agent/relay.py is the other end), and what would be mounted read-only is
copied into the container before it starts. What it would have to write to cannot be had there.
"""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

import anyio
from anyio.abc import SocketStream, TaskGroup

from minimodal.errors import LaunchError, ProtocolError
from minimodal.types import ContainerSpec

from .bundle import TARGET, in_containers
from .docker_requests import Stream
from .docker_spec import Bind

SOCKET = "/tmp/.minimodal/engine.sock"
_HEADER = struct.Struct("<II")
_CHUNK = 256 * 1024
_HUNG_UP = 4096  # connections whose end we said and the container has not


def relay_command(python: str) -> tuple[str, ...]:
    """The command that starts the agent behind a relay."""
    return (python, "-u", f"{TARGET}/minimodal/agent/relay.py", SOCKET)


class Relay:
    """Carries the connections of one container between its attached stream and our socket."""

    def __init__(self, stream: Stream, path: Path, tasks: TaskGroup) -> None:
        self._stream = stream
        self._path = path
        self._tasks = tasks
        self._unread = bytearray()
        self._sockets: dict[int, SocketStream] = {}
        self._hung_up: set[int] = set()  # by the engine, while the container may still be sending
        self._writing = anyio.Lock()

    async def feed(self, data: bytes) -> None:
        """Bytes of the container's stdout. Raises ProtocolError; OSError if our socket is closed."""
        self._unread += data
        while len(self._unread) >= _HEADER.size:
            number, length = _HEADER.unpack_from(self._unread)
            if length > _CHUNK:
                raise ProtocolError(f"a piece of {length} bytes on the relay's stream")
            end = _HEADER.size + length
            if len(self._unread) < end:
                return
            piece = bytes(self._unread[_HEADER.size : end])
            del self._unread[:end]
            await self._take(number, piece)

    async def aclose(self) -> None:
        """The stream has ended, perhaps because the engine has: nobody need wait for its silence."""
        for sock in [*self._sockets.values()]:
            await sock.aclose()

    async def _take(self, number: int, piece: bytes) -> None:
        sock = self._sockets.get(number)
        if not piece:
            self._hung_up.discard(number)
            if sock is not None:
                del self._sockets[number]
                await sock.aclose()
            return
        if number in self._hung_up:
            return
        if sock is None:
            if len(self._hung_up) > _HUNG_UP:
                raise ProtocolError("too many connections on the relay's stream are never ended")
            sock = self._sockets[number] = await anyio.connect_unix(self._path)
            self._tasks.start_soon(self._give, number, sock)
        try:
            await sock.send(piece)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # the engine has hung up; `_give` tells the container

    async def _give(self, number: int, sock: SocketStream) -> None:
        """From the engine to the container, until one of them closes."""
        try:
            while True:
                await self._write(number, await sock.receive(_CHUNK))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        finally:
            await sock.aclose()
        if self._sockets.pop(number, None) is not None:
            self._hung_up.add(number)
            try:
                await self._write(number, b"")
            except anyio.BrokenResourceError:
                pass  # the container has ended

    async def _write(self, number: int, piece: bytes) -> None:
        async with self._writing:
            await self._stream.write(_HEADER.pack(number, len(piece)) + piece)


def copies(spec: ContainerSpec, binds: Iterable[Bind]) -> bytes:
    """What would be mounted, as a tar archive to be unpacked at the container's root. Blocking.

    Directories above a target are no part of it: the engine makes those that the image lacks, and an
    entry would change the others. Raises LaunchError for what a container could write to: it would
    write to a copy.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for bind in binds:
            if not bind.read_only:
                raise LaunchError(
                    f"{spec.label} mounts {bind.target} to write to it, and the Docker engine runs on "
                    "another machine or in a virtual one, which cannot. Run minimodal where the engine "
                    "runs, or use another backend."
                )
            tar.add(bind.source, bind.target.lstrip("/"), filter=readable)
    return archive.getvalue()


def readable(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Root's, and for everybody to read: the container's user is another one.

    Of our own packages only what an agent runs: each file costs a fraction of a millisecond.
    """
    if not in_containers(f"/{member.name}"):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() or member.mode & 0o100 else 0o444
    return member
