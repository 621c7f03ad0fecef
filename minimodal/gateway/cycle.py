"""`Cycle`: one request of a connection and its response, which is checked and written.

Uvicorn's does the request's body. What is ours is the response: its head and first body are one write,
and a head or a length that is none is an error before anything was written, where that can be known.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from minimodal.asgi_messages import RESPONSE

from .headers import Header

if TYPE_CHECKING:
    from .connection import Connection

BODILESS = (204, 304)

_NAMES = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+(?::[-!#$%&'*+.^_`|~0-9A-Za-z]+)*")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")

quiet = logging.getLogger("minimodal.gateway.http")
quiet.propagate = False  # uvicorn tells of each bad request; the gateway says what matters itself
quiet.addHandler(logging.NullHandler())
quiet.setLevel(logging.CRITICAL)


class Cycle(RequestResponseCycle):
    """One request and its response. Takes RESPONSE too: a head and its first body in one write."""

    def __init__(self, connection: Connection, keep_alive: bool) -> None:
        super().__init__(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=quiet,
            access_logger=quiet,
            access_log=False,
            default_headers=[],
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )
        self._left: int | None = None  # bytes of the body to come; None: nobody knows

    async def send(self, message: Any) -> None:
        """Raises ValueError for what is no proper response."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        kind = message["type"]
        if kind == "http.response.body" and self.response_started:
            self._write(b"", message)
        elif kind == RESPONSE and not self.response_started:
            self._write(self._head(message["status"], message["headers"]), message)
        elif kind == "http.response.start" and not self.response_started:
            self.transport.write(self._head(message["status"], list(message.get("headers", ()))))
        else:
            raise ValueError(f"{kind!r} is out of turn")
        self.response_started = True

    def _head(self, status: int, headers: Sequence[Header]) -> bytes:
        names = b":".join([name for name, _ in headers])
        values = b"\n".join([value for _, value in headers])
        if headers and (not _NAMES.fullmatch(names) or names.count(b":") >= len(headers)):
            raise ValueError("a header's name is not well formed")
        if _CONTROL.search(values) or values.count(b"\n") >= max(1, len(headers)):
            raise ValueError("a header's value is not well formed")
        parts = [STATUS_LINE[status]]
        self._left, self.chunked_encoding = None, False  # of an earlier head that was none
        closing = False
        for name, value in headers:
            name = name.lower()
            if name == b"content-length":
                if self._left is not None or not value.isdigit():
                    raise ValueError("there is one Content-Length, and it is a number")
                self._left = int(value)
            elif name == b"transfer-encoding":
                continue  # how the body travels is decided here
            elif name == b"connection" and b"close" in value.lower():
                closing = True
            parts += (name, b": ", value, b"\r\n")
        if self.scope["method"] == "HEAD" or status in BODILESS:
            self._left = 0
        elif self._left is None:
            self.chunked_encoding = self.scope["http_version"] == "1.1"
            if self.chunked_encoding:
                parts.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection is the end of the body
        if closing:
            self.keep_alive = False
        elif not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        self.waiting_for_100_continue = False
        return b"".join(parts)

    def _write(self, head: bytes, message: Any) -> None:
        if self.response_complete:
            raise ValueError("the response is complete already")
        body, more = message.get("body", b""), message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        if self.chunked_encoding:
            size = b"%x\r\n" % len(body) if body else b""
            last = b"" if more else b"0\r\n\r\n"
            self.transport.write(b"".join((head, size, body, b"\r\n" if body else b"", last)))
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (self._left and not more):
                    raise ValueError("the body is longer or shorter than its Content-Length")
            self.transport.write(b"".join((head, body)) if head else body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()
