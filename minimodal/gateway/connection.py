"""One client's connection: its requests read, and its patience ended. Answers are cycle.py's.

Uvicorn's protocol does the turns (pipelining, keep-alive, flow control) and llhttp, the parser of
Node.js, the reading. What is ours: the limits against hostile clients, what llhttp lets pass and no
careful server takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .cycle import Cycle, quiet
from .limits import Limits

LINGER = 1.0  # seconds that a refused client has to read why
HEAD_TOO_LARGE = "The request's headers are too large."
INVALID = "Invalid HTTP request received."

_LOOKED_AT = frozenset((b"host", b"expect", b"transfer-encoding"))

log = logging.getLogger("minimodal.gateway")


class Malformed(Exception):
    """Raised within the parser's callbacks: the status that the request deserves, and why."""


class Connection(HttpToolsProtocol):
    """A connection that must say what it wants in time, and is refused where there are too many."""

    def __init__(self, config: uvicorn.Config, state: ServerState, limits: Limits) -> None:
        super().__init__(config, state, {})
        self._limits = limits
        self.logger = quiet
        self.access_log = False
        self._deadline: asyncio.TimerHandle | None = None  # for the request's head
        self._refused = False
        self._reading: Cycle | None = None  # the last request whose head is here; `cycle` runs
        self._waiting: deque[Cycle] = deque()  # pipelined
        self._in_head = False
        self._hosts = 0
        self._encoded = False  # the body is chunked
        self._unread = 0  # bytes since the parser last made something of them
        self._newest = 0  # bytes that it is given now

    # --- the transport's events ----------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._refuse(503, "Too many connections.", b"retry-after: 1\r\n")
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._unread += len(data)
        self._newest = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._upgraded(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if (
                isinstance(error, httptools.HttpParserCallbackError)
                and type(cause) is not Malformed
            ):
                log.error("a request could not be taken", exc_info=cause)  # our bug
            self._break_off(*(cause.args if type(cause) is Malformed else (400, INVALID)))
            return
        if self._unread > self._limits.header_bytes:
            if self._in_head:
                self._break_off(431, HEAD_TOO_LARGE)
            else:  # of a chunk, or behind the last one: nobody is to see them, so nobody bounds them
                self._break_off(400, "The request's body is not well formed.")
        elif not self._in_head and self.cycle is not None and not self.cycle.response_complete:
            self._head_came()
        elif self._deadline is None:
            self._expect_head()  # the next request on this connection has begun

    def eof_received(self) -> None:
        if self._refused:
            self.transport.close()

    def shutdown(self) -> None:
        if self._refused:
            self.transport.close()
        else:
            super().shutdown()

    # --- the parser's events -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self._hosts = 0
        self._encoded = False
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer: it comes after all that decides on headers
        name = name.lower()
        if name in _LOOKED_AT:
            if name == b"host":
                self._hosts += 1
            elif name == b"expect":
                self.expect_100_continue = value.lower() == b"100-continue"
            elif value.lower() == b"chunked":
                self._encoded = True
            else:
                raise Malformed(501, "Of transfer encodings this server knows chunked alone.")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        most = self._limits.header_bytes
        if (self._unread > most or self._newest > most) and self._head_bytes() > most:
            raise Malformed(431, HEAD_TOO_LARGE)
        self._unread = 0
        parser = self.parser
        version: str = parser.get_http_version()
        if version != "1.1" and (version != "1.0" or self._encoded):
            raise Malformed(400, "This server speaks HTTP/1.1.")
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise Malformed(400, "A request has one Host header.")
        raw_path, _, query = self.url.partition(b"?")
        path = raw_path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "scheme": self.scheme,  # type: ignore[typeddict-item]
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self.client,
            "server": self.server,
            "state": {"flow": self.flow},  # who knows that nothing is held back needs no timer
        }
        if not parser.should_upgrade():
            self._begin(version == "1.1" and parser.should_keep_alive())

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        cycle = self._reading
        assert cycle is not None
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._unread = 0
        if self._reading is not None and not self.parser.should_upgrade():
            self._reading.more_body = False
            self._reading.message_event.set()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(text) + 4 for name, text in self.headers)

    def _begin(self, keep_alive: bool) -> None:
        running = self.cycle
        cycle = self._reading = Cycle(self, keep_alive)
        if running is None or running.response_complete:
            self._run(cycle)
        else:
            self.flow.pause_reading()
            self._waiting.append(cycle)

    def _run(self, cycle: Cycle) -> None:
        self.cycle = cycle
        self._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._waiting:
            self._run(self._waiting.popleft())
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def _upgraded(self, rest: bytes) -> None:
        """The parser stopped behind a head that asks for another protocol."""
        if self.scope["method"] == "CONNECT":
            self._break_off(400, "This server is no proxy.")
        elif self._should_upgrade() and self.cycle is not None and not self.cycle.response_complete:
            self._break_off(400, INVALID)  # the answer before it would run into its frames
        elif self._should_upgrade():
            self._head_came()
            self.handle_websocket_upgrade()
        else:  # it may be answered in HTTP/1.1: read again without the wish, and with its body
            again = [self.scope["method"].encode(), b" ", self.url, b" HTTP/1.1\r\n"]
            for name, value in self.headers:
                if name != b"upgrade":
                    again += [name, b": ", value, b"\r\n"]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self.data_received(b"".join((*again, b"\r\n", rest)))

    # --- bounds --------------------------------------------------------------------------------------

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(self._limits.header_seconds, self._too_slow)

    def _head_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._expect_head()  # it is we who keep it waiting
        elif self._in_head or self.cycle is None:
            self._break_off(408, "The request did not arrive in time.")
        else:
            self.transport.close()  # it sends on the body of a request that has its answer

    def _break_off(self, status: int, text: str) -> None:
        """Read nothing more. Whole requests that came before are answered first."""
        running, reading = self.cycle, self._reading
        if running is None or running.response_complete:
            self._refuse(status, text)
        elif reading is running and reading.more_body:  # its own body is broken
            running.disconnected = True
            running.message_event.set()
            if running.response_started:
                self.transport.close()
            else:
                self._refuse(status, text)
        else:
            self._refused = True
            if self._waiting and self._waiting[-1].more_body:
                self._waiting.pop()
            last = self._waiting[-1] if self._waiting else running
            last.keep_alive = False

    def _refuse(self, status: int, text: str, more: bytes = b"") -> None:
        """Answer, and end the connection so that the client can read it.

        Closing while its bytes still arrive would reset the connection, and lose the answer.
        """
        self._refused = True
        self._head_came()
        body = (text + "\n").encode()
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\n"
            b"content-length: %d\r\nconnection: close\r\n%b\r\n%b"
            % (status, HTTPStatus(status).phrase.encode(), len(body), more, body)
        )
        self.transport.write_eof()
        self._deadline = self.loop.call_later(LINGER, self.transport.abort)
