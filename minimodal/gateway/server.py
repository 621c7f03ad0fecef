"""The port: binding it, speaking HTTP and WebSocket on it, and closing it in good order.

Uvicorn's protocols do the speaking; its `Server` is not used, because it wants signals, an exit of
its own and a poll ten times a second. What is ours here: the socket, the limits against hostile
clients, and the end.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import uvicorn
from uvicorn.server import ServerState

from minimodal.errors import StateError

from .connection import Connection
from .limits import Limits

TRIED_PORTS = 100


def bind(host: str, port: int, *, strict: bool = False) -> socket.socket:
    """A listening socket on `port`, or on the next free one unless `strict`; 0: any.

    Raises StateError that names the port and the way out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, min(port + (1 if strict or port == 0 else TRIED_PORTS), 65536)):
        sock = socket.socket(family, socket.SOCK_STREAM)
        # A port of an engine that has just ended can be bound at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, candidate))
            sock.listen(2048)
        except OSError as error:
            sock.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise StateError(
                    f"cannot listen on {host}:{candidate}: {error.strerror}"
                ) from error
            continue
        sock.setblocking(False)
        return sock
    raise StateError(
        f"port {port} of {host} is taken{'' if strict else ', and so are the next ones'}. Choose "
        "another with --port or MINIMODAL_PORT, or end the program that has it"
    )


class Server:
    """Connections of one listening socket."""

    def __init__(self, app: Any, limits: Limits) -> None:
        self.state = ServerState()
        self._limits = limits
        self._config = uvicorn.Config(
            app,
            http="httptools",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.keep_alive),
            ws_max_size=limits.websocket_bytes,
        )
        self._config.load()

    def protocol(self) -> asyncio.Protocol:
        return Connection(self._config, self.state, self._limits)

    async def close(self) -> None:
        """End idle connections now, busy ones when they are done or `drain` is over."""
        for connection in list(self.state.connections):
            connection.shutdown()
        with anyio.move_on_after(self._limits.drain):
            while self.state.connections or self.state.tasks:  # noqa: ASYNC110
                await anyio.sleep(0.02)  # uvicorn's protocols tell nobody when they have ended
        for task in list(self.state.tasks):
            task.cancel()
        for connection in list(self.state.connections):
            if connection.transport is not None:
                connection.transport.abort()


@asynccontextmanager
async def serve(app: Any, sock: socket.socket, limits: Limits) -> AsyncIterator[Server]:
    """Serve `app` on a bound socket for the length of the block."""
    server = Server(app, limits)
    listener = await asyncio.get_running_loop().create_server(server.protocol, sock=sock)
    try:
        yield server
    finally:
        listener.close()
        with anyio.CancelScope(shield=True):
            await server.close()
