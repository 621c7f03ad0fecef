"""`Client.ask` on the engine's side: requests by name, and the ones about apps and calls.

Another room of the engine adds its operations with `engine.ops.add("queue.get", handler)`. A handler
gets the caller, the fields and the payload; it is a plain function, or async where it has to wait.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from minimodal.errors import Error, InvalidError
from minimodal.protocols import Reply
from minimodal.types import Payload

if TYPE_CHECKING:
    from minimodal.protocols import Answered

    from .engine import Engine
    from .offline import Offline
    from .session import Session

log = logging.getLogger("minimodal.engine")


class Caller(NamedTuple):
    """Who asks. `session`: the container that asks, None for the user's own process."""

    session: Session | None = None


USER = Caller()

Fields = Mapping[str, Any]
"""What an operation is asked with, beside its payload; only plain data."""

Handler = Callable[[Caller, Fields, Payload], "Reply | Awaitable[Reply]"]


class Ops:
    """The operations of one engine, by name."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    def add(self, name: str, handler: Handler) -> None:
        assert name not in self._handlers, f"two operations are called {name}"
        self._handlers[name] = handler

    def has(self, name: str) -> bool:
        return name in self._handlers

    def find(self, name: str) -> Handler:
        handler = self._handlers.get(name)
        if handler is None:
            raise InvalidError(f"this engine has no operation {name!r}; is it of another version?")
        return handler


class Request:
    """One `ask` on its way. Answers once, unless it was abandoned before."""

    def __init__(
        self,
        engine: Engine | Offline,
        op: str,
        fields: Fields,
        payload: Payload,
        answered: Answered,
        caller: Caller = USER,
    ) -> None:
        self._engine = engine
        self._op = op
        self._fields = fields
        self._payload = payload
        self._answered = answered
        self._caller = caller
        self._scope: anyio.CancelScope | None = None
        self._abandoned = False

    def start(self) -> None:
        try:
            reply = self._engine.ops.find(self._op)(self._caller, self._fields, self._payload)
        except Exception as error:
            self._answer(_shown(self._op, error))
            return
        if isinstance(reply, Reply):
            self._answer(reply)
        else:
            self._engine.tasks.start_soon(self._wait, reply)

    async def _wait(self, reply: Awaitable[Reply]) -> None:
        with anyio.CancelScope() as self._scope:
            if self._abandoned:
                self._scope.cancel()
            try:
                self._answer(await reply)
            except Exception as error:
                self._answer(_shown(self._op, error))
            except BaseException:
                self._answer(Error(f"the engine stopped before {self._op} was done"))
                raise

    def abandon(self) -> None:
        self._abandoned = True
        if self._scope is not None:
            self._scope.cancel()

    def _answer(self, answer: Reply | BaseException) -> None:
        if not self._abandoned:
            self._answered(answer)


def _shown(op: str, error: Exception) -> Exception:
    """A bug of ours in one request must not end the engine; it is logged and told to who asked."""
    if not isinstance(error, (Error, OSError, KeyError, ValueError, TypeError)):
        log.exception("operation %s failed", op)
    return error
