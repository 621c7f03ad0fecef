"""`DeadLetter`: a call that failed for good, with its input and attempts, to look at and to run again."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import context, pickling
from .call import FunctionCall
from .errors import NotFoundError
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
        calls = (await context.ask("dlq.retry", ids=[self.call_id])).fields["calls"]
        if not calls:
            raise NotFoundError(f"there is no dead letter {self.call_id}")
        return FunctionCall(calls[0])

    @both
    async def purge(self) -> None:
        """Drop its input; the error stays readable by the call's id. Not an error if it is gone."""
        await context.ask("dlq.purge", ids=[self.call_id])

    @staticmethod
    async def _from_id(call_id: str) -> DeadLetter:
        """The dead letter of `call_id`. Raises NotFoundError where there is none."""
        reply = await context.ask("dlq.show", id=call_id)
        return _letter(reply.fields["call"])

    @staticmethod
    async def _list(*, function: str | None = None, limit: int = 100) -> builtins.list[DeadLetter]:
        """At most `limit`, the newest first; of one `function`, as "app/name", or of all."""
        reply = await context.ask("dlq.list", function=function, limit=limit)
        return [_letter(row) for row in reply.fields["calls"]]

    @staticmethod
    async def _retry_all(*, function: str | None = None) -> builtins.list[FunctionCall[Any]]:
        """Run all again, or those of one `function`, as "app/name"."""
        reply = await context.ask("dlq.retry", function=function)
        return [FunctionCall(call_id) for call_id in reply.fields["calls"]]

    @staticmethod
    async def _purge_all(*, function: str | None = None, before: float | None = None) -> int:
        """Drop the inputs of all, or of one `function` ("app/name"), that ended before a time in seconds
        since 1970, `before`; how many they were."""
        reply = await context.ask("dlq.purge", function=function, before=before, all=True)
        return int(reply.fields["count"])

    from_id = both_function(_from_id)
    list = both_function(_list)
    retry_all = both_function(_retry_all)
    purge_all = both_function(_purge_all)


def _letter(row: Mapping[str, Any]) -> DeadLetter:
    return DeadLetter(
        row["id"], row["function"], row["user"], row["error"], row["created"], row["finished"]
    )
