"""One HTTP request to an endpoint, from the client's bytes to the app's messages and back.

Nothing is held whole but small request bodies: those are read before a container is asked, so that
a slow client occupies none. When the client leaves, the app is told, and cancelled soon after.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.asgi_messages import RESPONSE, pack, unpack
from minimodal.errors import Error, ProtocolError
from minimodal.types import WebRoute

from . import answers
from .answers import Answer, Refused
from .headers import Header, below, content_length, has_body, to_app, to_client

if TYPE_CHECKING:
    from .app import Gateway
    from .seam import Exchange

log = logging.getLogger("minimodal.gateway")

WATCH_AFTER = 0.05  # seconds; a request that is answered sooner needs nobody to watch its client
_GONE = pack({"type": "http.disconnect"})


class Cut(Exception):
    """The response cannot be completed: the connection ends, so that the client notices."""


class HttpExchange:
    """Made for each request; `run` is the whole of it."""

    def __init__(
        self,
        gateway: Gateway,
        scope: Any,
        last: Mapping[bytes, bytes],
        receive: Any,
        send: Any,
        route: WebRoute,
        prefix: str,
    ) -> None:
        self._gateway = gateway
        self._limits = gateway.limits
        self._scope = scope
        self._last = last  # of each header its last value
        self._receive = receive
        self._send = send
        self._flow = scope.get("state", {}).get("flow")  # of the connection; see server.py
        self._route = route
        self._prefix = prefix
        self._read = 0  # bytes of the body
        self._refusal: Answer | None = None  # why the gateway itself ended it
        self._started = False
        self._ended = False
        self._left = False  # the client
        self._scopes: list[anyio.CancelScope] = []
        self.status = 0
        self.call_id = ""

    async def run(self) -> None:
        try:
            body, more = await self._opening()
        except Refused as refused:
            await self._give(refused.answer)
            return
        except ConnectionError:
            return  # it left before its request was whole: nobody to answer
        try:
            user, query = self._gateway.user_of(self._last), self._scope["query_string"]
            packed = self._packed(body, more)
            exchange = self._gateway.web.open(self._route, packed, query, user)
        except Error as error:
            await self._give(answers.refused(error, self._retry_after()))
            return
        self.call_id = exchange.call_id
        await self._converse(exchange, more)

    # --- the request ---------------------------------------------------------------------------------

    async def _opening(self) -> tuple[bytes, bool]:
        """The first part of the body; all of it where it is small."""
        if not has_body(self._last):
            return b"", False
        length = content_length(self._last)
        if length is not None and length > self._limits.body_bytes:
            raise Refused(answers.TOO_LARGE)
        parts: list[bytes] = []
        while True:
            body, more = await self._next_part()
            parts.append(body)
            if not more or length is None or length > self._limits.buffered_body:
                return b"".join(parts), more

    async def _next_part(self) -> tuple[bytes, bool]:
        with anyio.move_on_after(self._limits.body_idle) as patience:
            message = await self._receive()
        if patience.cancelled_caught:
            raise Refused(answers.TOO_SLOW)
        if message["type"] != "http.request":
            raise ConnectionError
        body: bytes = message.get("body", b"")
        self._read += len(body)
        if self._read > self._limits.body_bytes:
            raise Refused(answers.TOO_LARGE)
        return body, bool(message.get("more_body"))

    def _packed(self, body: bytes, more: bool) -> bytes:
        scope = self._scope
        client = scope.get("client") or ("", 0)
        return pack(
            {
                "type": "http",
                "http_version": scope["http_version"],
                "method": scope["method"],
                "scheme": scope["scheme"],
                **below(self._prefix, scope),
                "root_path": self._prefix,
                "query_string": scope["query_string"],
                "client": client,
                "server": scope.get("server"),
                "headers": to_app(
                    scope["headers"], self._last, client[0], scope["scheme"], self._prefix
                ),
                "body": body,
                "more_body": more,
            }
        )

    async def _pass_on(self, exchange: Exchange, more: bool) -> None:
        """Give the app the rest of the body, then wait for the client to leave."""
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                while more:
                    body, more = await self._next_part()
                    message = {"type": "http.request", "body": body, "more_body": more}
                    if not await exchange.send(pack(message)):
                        return
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            except Refused as refused:
                self._refusal = refused.answer
                exchange.cancel()
                return
            except ConnectionError:
                pass
            if self._ended:
                return
            self._left = True
            exchange.send_nowait(_GONE)
            await anyio.sleep(self._limits.disconnect_grace)
            exchange.cancel()

    # --- the response --------------------------------------------------------------------------------

    async def _converse(self, exchange: Exchange, more: bool) -> None:
        tasks = self._gateway.tasks
        watch = None
        if more:
            tasks.start_soon(self._pass_on, exchange, True)
        else:
            watch = asyncio.get_running_loop().call_later(
                WATCH_AFTER, lambda: tasks.start_soon(self._pass_on, exchange, False)
            )
        whole = False
        try:
            whole = await self._respond(exchange)
        finally:
            self._ended = True
            if watch is not None:
                watch.cancel()
            for scope in self._scopes:
                scope.cancel()
            if not whole:
                exchange.cancel()

    async def _respond(self, exchange: Exchange) -> bool:
        """True when the response was sent whole. What the app still does then is its own matter."""
        while items := await exchange.receive():
            for item in items:
                try:
                    more = await self._forward(unpack(item.data))
                except (ProtocolError, KeyError, TypeError, ValueError) as error:
                    log.warning("%s sent no proper response: %s", self._route.function, error)
                    await self._give_up(
                        Answer(502, f"{self._route.function} sent no proper response.")
                    )
                    return False
                if not more:
                    return True
        if not self._left:  # else there is nobody to answer
            await self._give_up(self._refusal or self._failed(exchange))
        return False

    def _failed(self, exchange: Exchange) -> Answer:
        show = self._gateway.show_errors
        retry = self._retry_after()
        name = self._route.function
        return answers.failed(name, exchange.call_id, exchange.state, exchange.failure, retry, show)

    def _retry_after(self) -> float:
        return self._gateway.web.retry_after(self._route)

    async def _forward(self, message: dict[str, Any]) -> bool:
        """Send one message of the app's to the client. False after the last."""
        more = bool(message.get("more_body", False))
        body = message.get("body", b"")
        match message["type"]:
            case kind if kind == RESPONSE and not self._started:
                await self._start(int(message["status"]), message["headers"], body, more)
            case "http.response.body" if self._started:
                await self._write({"type": "http.response.body", "body": body, "more_body": more})
            case kind:
                raise ValueError(f"{kind!r} is out of turn")
        return more

    async def _start(self, status: int, headers: list[Header], body: bytes, more: bool) -> None:
        if not 200 <= status <= 599:
            raise ValueError(f"status {status}")
        headers = to_client(headers)
        if b"date" not in dict(headers):
            headers.append((b"date", _date()))
        whole = {"status": status, "headers": headers, "body": body, "more_body": more}
        await self._write({"type": RESPONSE, **whole})
        self._started = True
        self.status = status

    async def _write(self, message: dict[str, Any]) -> None:
        if self._flow is not None and not self._flow.write_paused:
            await self._send(message)  # it waits for nothing
            return
        with anyio.move_on_after(self._limits.write_idle) as patience:
            await self._send(message)
        if patience.cancelled_caught:
            raise Cut(f"the client of {self._route.function} reads nothing")

    async def _give(self, answer: Answer) -> None:
        self._started = True
        self.status = answer.status
        await answers.give(self._send, answer, self._scope["method"] == "HEAD")

    async def _give_up(self, answer: Answer) -> None:
        if self._started:
            raise Cut(answer.text)
        await self._give(answer)


_dated = (0, b"")


def _date() -> bytes:
    """The Date header, made once a second."""
    global _dated
    now = int(time.time())
    if _dated[0] != now:
        _dated = (now, formatdate(now, usegmt=True).encode())
    return _dated[1]
