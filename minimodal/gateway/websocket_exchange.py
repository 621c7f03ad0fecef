"""One WebSocket to an endpoint: messages pass both ways until one side closes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.asgi_messages import pack, unpack
from minimodal.errors import Error, ProtocolError
from minimodal.types import CallState, WebRoute

from . import answers
from .answers import Answer
from .headers import below, to_app, to_client

if TYPE_CHECKING:
    from .app import Gateway
    from .seam import Exchange

log = logging.getLogger("minimodal.gateway")

FROM_APP = frozenset({"websocket.accept", "websocket.send", "websocket.close"})
DENIAL = "websocket.http.response"  # extension: a refusal before the handshake may have a body
INTERNAL_ERROR = 1011
GOING_AWAY = 1001


class WebSocketExchange:
    """Made for each WebSocket; `run` is the whole of it."""

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
        self._scope = scope
        self._last = last  # of each header its last value
        self._receive = receive
        self._send = send
        self._route = route
        self._prefix = prefix
        self._accepted = False
        self._closed = False
        self.status = 0
        self.call_id = ""

    async def run(self) -> None:
        await self._receive()  # websocket.connect, which the app gets from its agent
        try:
            user, query = self._gateway.user_of(self._last), self._scope["query_string"]
            exchange = self._gateway.web.open(self._route, self._packed(), query, user)
        except Error as error:
            answer = answers.refused(error, self._gateway.web.retry_after(self._route))
            self.status = answer.status
            await deny(self._scope, self._send, answer)
            return
        self.call_id = exchange.call_id
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_on, exchange)
                await self._respond(exchange)
                tasks.cancel_scope.cancel()
        finally:
            exchange.cancel()

    def _packed(self) -> bytes:
        scope = self._scope
        client = scope.get("client") or ("", 0)
        return pack(
            {
                "type": "websocket",
                "http_version": scope["http_version"],
                "scheme": scope["scheme"],
                **below(self._prefix, scope),
                "root_path": self._prefix,
                "query_string": scope["query_string"],
                "client": client,
                "server": scope.get("server"),
                "subprotocols": list(scope.get("subprotocols", ())),
                "headers": to_app(
                    scope["headers"], self._last, client[0], scope["scheme"], self._prefix
                ),
            }
        )

    async def _pass_on(self, exchange: Exchange) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                exchange.send_nowait(pack(message))
                await anyio.sleep(self._gateway.limits.disconnect_grace)
                exchange.cancel()
                return
            if not await exchange.send(pack(message)):
                return

    async def _respond(self, exchange: Exchange) -> None:
        while items := await exchange.receive():
            for item in items:
                try:
                    await self._forward(unpack(item.data))
                except (ProtocolError, KeyError, TypeError, ValueError) as error:
                    log.warning("%s sent no proper message: %s", self._route.function, error)
                    exchange.cancel()
        if self._closed:
            return
        if self._accepted:
            well = exchange.state is CallState.OK
            code = GOING_AWAY if exchange.state is CallState.CANCELLED else INTERNAL_ERROR
            await self._send({"type": "websocket.close", "code": 1000 if well else code})
            return
        name, show = self._route.function, self._gateway.show_errors
        retry = self._gateway.web.retry_after(self._route)
        answer = (
            Answer(500, f"{name} neither accepted nor refused the WebSocket.")
            if exchange.state is CallState.OK
            else answers.failed(
                name, exchange.call_id, exchange.state, exchange.failure, retry, show
            )
        )
        self.status = answer.status
        await deny(self._scope, self._send, answer)

    async def _forward(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == f"{DENIAL}.start":
            start = {**message, "headers": to_client(message.get("headers", []))}
            start.pop("body", None)
            start.pop("more_body", None)
            self.status = int(message["status"])
            await self._send(start)
            if "body" in message:
                kind = f"{DENIAL}.body"
            else:
                return
        if kind == f"{DENIAL}.body":
            more = bool(message.get("more_body", False))
            self._closed = self._closed or not more
            body = message.get("body", b"")
            await self._send({"type": kind, "body": body, "more_body": more})
            return
        if kind not in FROM_APP:
            raise ValueError(f"{kind!r} is out of turn")
        if kind == "websocket.accept":
            self._accepted = True
            self.status = 101
            message["headers"] = to_client(message.get("headers", []))
        self._closed = self._closed or kind == "websocket.close"
        if kind == "websocket.close" and not self._accepted:
            self.status = 403
        with anyio.move_on_after(self._gateway.limits.write_idle) as patience:
            await self._send(message)
        if patience.cancelled_caught:
            raise ProtocolError("the client reads nothing")


async def deny(scope: Any, send: Any, answer: Answer) -> None:
    """Refuse a WebSocket before its handshake, with a status of our own where the server can."""
    if DENIAL not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": 1000})
        return
    body = (answer.text + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    await send({"type": f"{DENIAL}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{DENIAL}.body", "body": body})
