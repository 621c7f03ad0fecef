"""The Unix socket on which one container's agent reaches the engine. Shared by all backends.

Each container has a directory of its own under `Home.runtime`, named by its engine, so that no
container sees another's socket and the directories of dead engines can be swept.
"""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

from minimodal.engine_lock import is_alive
from minimodal.home import Home
from minimodal.protocols import ProtocolFactory

NAME = "engine.sock"
MAX_STREAMS = 1024  # of one container at a time
MAX_SHARE = 4  # and a quarter of the engine's descriptors: a hostile one cannot use them up


class SocketDirectories:
    """Gives each container a directory. Paths stay short: a Unix path has 107 bytes."""

    def __init__(self, home: Home, engine_id: str) -> None:
        self.path = home.runtime / "c" / engine_id
        self._numbers = count(1)

    @contextmanager
    def new(self) -> Iterator[Path]:
        """A private directory, removed at the end of the block."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory = self.path / str(next(self._numbers))
        directory.mkdir()
        directory.chmod(0o711)  # for another uid inside; on the host its parent keeps others out
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


def sweep(home: Home) -> None:
    """Remove the socket directories of engines that are dead."""
    root = home.runtime / "c"
    for directory in root.iterdir() if root.is_dir() else ():
        if not is_alive(home, directory.name):
            shutil.rmtree(directory, ignore_errors=True)


@asynccontextmanager
async def serve(directory: Path, connect: ProtocolFactory) -> AsyncIterator[Path]:
    """Listen in `directory`; `connect` gives the protocol of each stream. Closed at the end."""
    streams = _Streams(connect)
    path = directory / NAME
    server = await asyncio.get_running_loop().create_unix_server(streams.accept, path, backlog=256)
    try:
        # Only this container has the directory; the agent may run under another uid than ours.
        os.chmod(path, 0o666)
        yield path
    finally:
        server.close()


class _Streams:
    def __init__(self, connect: ProtocolFactory) -> None:
        self._connect = connect
        self._count = 0
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(MAX_STREAMS, descriptors // MAX_SHARE)

    def accept(self) -> asyncio.BaseProtocol:
        if self._count >= self._most:
            return _Refuse()
        self._count += 1
        protocol = self._connect()
        lost = protocol.connection_lost

        def connection_lost(error: Exception | None) -> None:
            self._count -= 1
            lost(error)

        protocol.connection_lost = connection_lost  # type: ignore[method-assign,assignment]  # of this one
        return protocol


class _Refuse(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()
