"""`Conversation`: the ASGI `receive` and `send` of one request, over the executor's link.

What comes in waits in an inbox that the engine bounds: each message that the app takes is reported.
What goes out is bounded by credits. The engine's side of this is engine/exchange.py.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from minimodal.asgi_messages import PIECE_BYTES, RESPONSE, pack, unpack
from minimodal.types import Payload
from minimodal.wire import Kind

from .executor import Credits, Input
from .link import Link

Message = dict[str, Any]
SENT_MESSAGES = 64  # that the client has not taken
SENT_BYTES = 2 << 20


class Conversation:
    """One request or WebSocket. `scope` is what the app is called with."""

    def __init__(self, link: Link, one: Input, state: dict[str, Any]) -> None:
        self._link = link
        self._seq = one.seq
        self._loop = asyncio.get_running_loop()
        opening = unpack(one.payload.data)
        body = opening.pop("body", b"")
        more = bool(opening.pop("more_body", False))
        self.is_websocket = opening["type"] == "websocket"
        self.scope: Message = {
            **opening,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "state": dict(state),
        }
        for name in ("client", "server"):
            if self.scope.get(name):
                self.scope[name] = tuple(self.scope[name])
        if self.is_websocket:
            self.scope["extensions"] = {"websocket.http.response": {}}
            first: Message = {"type": "websocket.connect"}
        else:
            first = {"type": "http.request", "body": body, "more_body": more}
        self._inbox: deque[Message] = deque([first])
        self._unreported = 1  # messages in the inbox that did not come as INPUT
        self._arrived = asyncio.Event()
        self.gone = False  # the client left
        self.complete = False  # the response is whole
        self._head: Message | None = None  # a response's start, until its first body
        self._budget = Credits(SENT_MESSAGES, SENT_BYTES)
        self._credit = asyncio.Event()

    # --- from the client ---------------------------------------------------------------------------

    def feed(self, payload: Payload) -> None:
        """An INPUT frame."""
        message = unpack(payload.data)
        if message["type"] == "http.disconnect":
            self.gone = True
        self._inbox.append(message)
        self._arrived.set()

    def credited(self, count: int) -> None:
        """A CREDIT frame."""
        self._budget.taken(count)
        self._credit.set()

    async def receive(self) -> Message:
        while not self._inbox:
            if self.gone or (self.complete and not self.is_websocket):
                return {"type": "http.disconnect"}
            self._arrived.clear()
            await self._arrived.wait()
        message = self._inbox.popleft()
        if self._unreported:
            self._unreported -= 1
        else:
            self._link.send(Kind.TAKEN, self._seq, "1")
        return message

    # --- to the client -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        if self.gone:
            return  # as every server does: the app learns of it by receive()
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                if self._head is not None:
                    raise RuntimeError("the app started its response twice")
                self._head = {"status": 200, "headers": [], **message}
                # Most apps send the body at once: then both are one message.
                self._loop.call_soon(self._flush_head)
            case "http.response.body" | "websocket.http.response.body":
                await self._send_body(message)
            case _:
                self._flush_head()
                await self._put(message)

    async def _send_body(self, message: Message) -> None:
        body = memoryview(message.get("body", b""))
        more = bool(message.get("more_body", False))
        while len(body) > PIECE_BYTES:
            await self._send_piece(message["type"], body[:PIECE_BYTES], True)
            body = body[PIECE_BYTES:]
        if not more:
            self.complete = True
        await self._send_piece(message["type"], body, more)
        if not more:
            self._arrived.set()

    async def _send_piece(self, kind: str, piece: memoryview, more: bool) -> None:
        head, self._head = self._head, None
        if head is not None:
            kind = head["type"] if self.is_websocket else RESPONSE
            await self._put({**head, "type": kind, "body": piece, "more_body": more})
        elif piece or not more:
            await self._put({"type": kind, "body": piece, "more_body": more})

    def _flush_head(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            kind = head["type"] if self.is_websocket else RESPONSE
            self._post({**head, "type": kind, "more_body": True})

    async def _put(self, message: Message) -> None:
        self._post(message)
        while self._budget.exhausted:
            self._credit.clear()
            await self._credit.wait()

    def _post(self, message: Message) -> None:
        data = pack(message)
        self._link.send(Kind.YIELD, self._seq, "", Payload(data))
        self._budget.sent(len(data))
