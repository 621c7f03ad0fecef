"""`Client.ask` as something to await, on the engine's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from minimodal.protocols import Reply
from minimodal.types import EMPTY, Payload

if TYPE_CHECKING:
    from minimodal.protocols import Client

    from .seam import Ask


def asker(client: Client) -> Ask:
    """`ask(op, **fields)`; cancelling the wait abandons the request."""

    async def wait(op: str, payload: Payload, fields: dict[str, Any]) -> Reply:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Reply] = loop.create_future()

        def land(reply: Reply | BaseException) -> None:
            if answer.done():
                return
            if isinstance(reply, Reply):
                answer.set_result(reply)
            else:
                answer.set_exception(reply)

        def answered(reply: Reply | BaseException) -> None:
            loop.call_soon_threadsafe(land, reply)

        abandon = client.ask(op, fields, payload, answered)
        try:
            return await answer
        except asyncio.CancelledError:
            abandon()
            raise

    def ask(op: str, payload: Payload = EMPTY, /, **fields: Any) -> Awaitable[Reply]:
        return wait(op, payload, fields)

    return ask
