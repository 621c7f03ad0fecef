"""`DeadLetter`: a call that failed for good, with its input and attempts, to look at and to run again."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import context, pickling
from .call import FunctionCall
from .face import both, both_function


@dataclass(frozen=True)
class DeadAttempt:
    """One failed attempt. `lost`: its container went away; else the function raised or ran too long."""

    number: int
    lost: bool
    error: str
    traceback: str


@dataclass(frozen=True)
class DeadLetter:
    """A durable call that failed for good. Made by `DeadLetter.list` and `DeadLetter.from_id`.

    Inputs are kept for 30 days, or until it is retried or purged.
    """

    call_id: str
    function: str  # "app/name"
    user: str
    error: str
    created: float  # seconds since the epoch
    finished: float

    @both
    async def input(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the call, positional and by name. Raises NotFoundError if it is gone."""
        reply = await context.ask("dlq.show", id=self.call_id)
        args, kwargs = pickling.loads(reply.payload, f"the input of {self.call_id}")
        return args, kwargs

    @both
    async def attempts(self) -> builtins.list[DeadAttempt]:
        """Each failed attempt, the first one first. Raises NotFoundError if it is gone."""
        reply = await context.ask("dlq.show", id=self.call_id)
        return [
            DeadAttempt(
                row["number"], row["lost"], f"{row['type']}: {row['message']}", row["traceback"]
            )
            for row in reply.fields["attempts"]
        ]

    @both
    async def retry(self) -> FunctionCall[Any]:
        """Run it again, as a new call with the same input. Raises NotFoundError if it is gone."""
        await context.ask("dlq.show", id=self.call_id)
        reply = await context.ask("dlq.retry", ids=[self.call_id])
        return FunctionCall(reply.fields["calls"][0])

    @both
    async def purge(self) -> None:
        """Drop its input; the error stays readable by the call's id. Not an error if it is gone."""
        await context.ask("dlq.purge", ids=[self.call_id])

    @staticmethod
    async def _from_id(call_id: str) -> DeadLetter:
        reply = await context.ask("dlq.show", id=call_id)
        return _letter(reply.fields["call"])

    @staticmethod
    async def _list(*, function: str | None = None, limit: int = 100) -> builtins.list[DeadLetter]:
        reply = await context.ask("dlq.list", function=function, limit=limit)
        return [_letter(row) for row in reply.fields["calls"]]

    @staticmethod
    async def _retry_all(*, function: str | None = None) -> builtins.list[FunctionCall[Any]]:
        reply = await context.ask("dlq.retry", function=function)
        return [FunctionCall(call_id) for call_id in reply.fields["calls"]]

    @staticmethod
    async def _purge_all(*, function: str | None = None, before: float | None = None) -> int:
        reply = await context.ask("dlq.purge", function=function, before=before, all=True)
        return int(reply.fields["count"])

    from_id = both_function(_from_id)
    """`DeadLetter.from_id(call_id)`. Raises NotFoundError where there is none."""

    list = both_function(_list)
    """`DeadLetter.list(function=None, limit=100)`: the newest first, of one "app/name" or of all."""

    retry_all = both_function(_retry_all)
    """`DeadLetter.retry_all(function=None)`: run all again, or those of one "app/name"."""

    purge_all = both_function(_purge_all)
    """`DeadLetter.purge_all(function=None, before=None)`: drop inputs of those that ended before a
    time; how many they were."""


def _letter(row: Mapping[str, Any]) -> DeadLetter:
    return DeadLetter(
        row["id"], row["function"], row["user"], row["error"], row["created"], row["finished"]
    )
