"""What the gateway needs of an engine: `ask` for all that is not hot, and a web host for requests."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from minimodal.face import Pending, wait
from minimodal.protocols import Client, Reply
from minimodal.types import EMPTY, CallState, Failure, Payload, WebRoute


class Exchange(Protocol):
    """One request that runs. Messages are packed by asgi_messages.py."""

    @property
    def call_id(self) -> str: ...

    @property
    def state(self) -> CallState: ...

    @property
    def failure(self) -> Failure | None: ...

    async def send(self, message: bytes) -> bool:
        """Give the app one more message, when it has room. False: it has ended."""
        ...

    def send_nowait(self, message: bytes) -> None: ...

    async def receive(self) -> Sequence[Payload]:
        """What the app sent, at least one message; none after its end."""
        ...

    def cancel(self) -> None: ...


class WebHost(Protocol):
    """Where endpoints live."""

    def routes(self) -> Sequence[WebRoute]: ...

    def open(
        self, route: WebRoute, request: bytes, query: bytes = b"", user: str = "default"
    ) -> Exchange:
        """Start a request. Raises NotFoundError, InvalidError, CircuitOpen or ResourceExhaustedError.

        `query`: of its URL, which may hold the parameters of a class.
        """
        ...

    def retry_after(self, route: WebRoute) -> float: ...


class Ask(Protocol):
    """`Client.ask`, awaited."""

    def __call__(self, op: str, payload: Payload = EMPTY, /, **fields: Any) -> Awaitable[Reply]: ...


def asker(client: Client) -> Ask:
    """`ask(op, **fields)` of a client; cancelling the wait abandons the request."""

    async def asked(op: str, payload: Payload, fields: dict[str, Any]) -> Reply:
        return await Pending(lambda answer: client.ask(op, fields, payload, answer))

    def ask(op: str, payload: Payload = EMPTY, /, **fields: Any) -> Awaitable[Reply]:
        return wait(asked(op, payload, fields))

    return ask
