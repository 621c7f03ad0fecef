"""Other processes of this machine: scripts and commands that use an engine which runs already.

Owns the engine's Unix socket, `Home.engines/<engine id>.sock`. Its mode is 0600 and each peer's uid is
checked, for a socket's mode means nothing on some systems. What a visitor had attached ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .peer import Peer
from .serving import Serving

if TYPE_CHECKING:
    from minimodal.home import Home

    from .engine import Engine

log = logging.getLogger("minimodal.engine")

MAX_VISITORS = 1024
HELLO_WITHIN = 10.0  # seconds
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


@asynccontextmanager
async def serve_visitors(engine: Engine, home: Home) -> AsyncIterator[Path]:
    """Listen for the length of the block; at its end all visitors are cut off."""
    path = home.engines / f"{engine.id}.sock"
    visitors: set[Visitor] = set()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        os.chmod(path, 0o600)  # nobody can connect before `listen`
        server = await asyncio.get_running_loop().create_unix_server(
            lambda: Visitor(engine, visitors), sock=listener
        )
    except BaseException:
        listener.close()
        raise
    try:
        yield path
    finally:
        server.close()
        path.unlink(missing_ok=True)
        for visitor in list(visitors):
            visitor.close("the engine stopped")


class Visitor(Peer):
    """One connection of another process, of our own user."""

    def __init__(self, engine: Engine, visitors: set[Visitor]) -> None:
        super().__init__(self._greet, engine.cork)
        self._engine = engine
        self._visitors = visitors
        self._hurry: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        uid = _uid_of(transport.get_extra_info("socket"))
        if uid not in (os.getuid(), None):
            log.warning("a process of uid %s was refused", uid)
            self.close("of another user")
        elif len(self._visitors) >= MAX_VISITORS:
            self.close(f"over {MAX_VISITORS} visitors")
        else:
            self._visitors.add(self)
            self._hurry = self._engine.loop.call_later(HELLO_WITHIN, self.close, "said nothing")

    def connection_lost(self, exc: Exception | None) -> None:
        self._visitors.discard(self)
        self._be_patient()
        super().connection_lost(exc)

    def _greet(self, peer: Peer, hello: dict[str, Any]) -> None:
        self._be_patient()
        Serving(self._engine, self, None)

    def _be_patient(self) -> None:
        if self._hurry is not None:
            self._hurry.cancel()
            self._hurry = None


def _uid_of(sock: Any) -> int | None:
    """The uid at the other end; None where the system doesn't say, and the mode has to do."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    data = sock.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid
