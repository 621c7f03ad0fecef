"""The port: binding it, speaking HTTP and WebSocket on it, and closing it in good order.

Uvicorn's protocols do the speaking; its `Server` is not used, because it wants signals, an exit of
its own and a poll ten times a second. What is ours here: the socket, the limits against hostile
clients, and the end.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from minimodal.errors import StateError

from .limits import Limits

TRIED_PORTS = 100
LINGER = 1.0  # seconds that a refused client has to read why

_quiet = logging.getLogger("minimodal.gateway.http")
_quiet.propagate = False  # uvicorn tells of each bad request; the gateway says what matters itself
_quiet.addHandler(logging.NullHandler())
_quiet.setLevel(logging.CRITICAL)


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
            http="h11",
            ws="websockets-sansio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.keep_alive),
            h11_max_incomplete_event_size=limits.header_bytes,
            ws_max_size=limits.websocket_bytes,
        )
        self._config.load()

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self._config, self.state, self._limits)

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


class _Parser(h11.Connection):
    """Remembers which status a request that breaks the rules deserves."""

    status = 400

    def next_event(self) -> Any:
        try:
            return super().next_event()
        except h11.RemoteProtocolError as error:
            self.status = error.error_status_hint
            raise


class _Connection(H11Protocol):
    """A connection that must say what it wants in time, and is refused where there are too many."""

    def __init__(self, config: uvicorn.Config, state: ServerState, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self.logger = _quiet
        self.access_log = False
        self.conn: Any = _Parser(h11.SERVER, limits.header_bytes)
        self._deadline: asyncio.TimerHandle | None = None
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # Copied into each request's scope: who knows that nothing is held back needs no timer.
        self.app_state = {"flow": self.flow}
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "Too many connections.", b"retry-after: 1\r\n")
            return
        self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        cycle = self.cycle
        super().data_received(data)
        if self._refused:
            return
        if self.cycle is not cycle or self.transport.is_closing():
            self._headers_came()
        elif self._deadline is None and self.conn.their_state is h11.IDLE:
            self._expect_headers()  # the next request on this connection has begun

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._headers_came()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        text = {431: "The request's headers are too large."}.get(self.conn.status, msg)
        if self.conn.our_state is h11.IDLE or self.conn.our_state is h11.SEND_RESPONSE:
            if (
                self.cycle is None
                or self.cycle.response_complete
                or not self.cycle.response_started
            ):
                self._refuse(self.conn.status, text)
        else:
            self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _expect_headers(self) -> None:
        self._deadline = self.loop.call_later(self._limits.header_seconds, self._too_slow)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self._refuse(408, "The request did not arrive in time.")

    def eof_received(self) -> None:
        if self._refused:
            self.transport.close()

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    def _refuse(self, status: int, text: str, more: bytes = b"") -> None:
        """Answer, and end the connection so that the client can read it.

        Closing while its bytes still arrive would reset the connection, and lose the answer.
        """
        self._refused = True
        body = (text + "\n").encode()
        reason = http_reason(status)
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n%b\r\n%b"
            % (status, reason, len(body), more, body)
        )
        self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER, self.transport.abort)


def http_reason(status: int) -> bytes:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
