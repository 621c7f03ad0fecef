"""Answers that the gateway itself gives on behalf of an endpoint: the status, and a line for people."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from minimodal.errors import CircuitOpen, Error, InvalidError, ResourceExhaustedError
from minimodal.types import CallState, Failure

from .headers import Header


class Answer(NamedTuple):
    status: int
    text: str
    headers: tuple[Header, ...] = ()


class Refused(Exception):
    """A request that the gateway itself does not take, and what its client is told."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.text)
        self.answer = answer


TOO_LARGE = Answer(413, "The request's body is larger than this server allows.")
TOO_SLOW = Answer(408, "The request's body did not arrive in time.")

# Errors of the platform, not of the user's code: trying again later may help.
_UNAVAILABLE = frozenset({"LaunchError", "RuntimeUnavailable", "ImageBuildError", "CircuitOpen"})


def failed(
    function: str, call: str, state: CallState, failure: Failure | None, retry: float, show: bool
) -> Answer:
    """What a client is told of a request whose call did not end well. `show`: with the traceback."""
    told = failure.message if failure else ""
    if state is CallState.TIMEOUT:
        return Answer(504, told)
    if state is CallState.CANCELLED:
        return unavailable(f"{function} stopped before it answered; try again.", 1.0)
    if state is CallState.LOST:
        return Answer(502, f"{function} went away before it answered (call {call}).")
    kind = failure.type.rpartition(".")[2] if failure else ""
    if kind == "InvalidError":  # our own words about how the endpoint was written
        return Answer(500, told)
    if kind in _UNAVAILABLE:
        return unavailable(
            told if show or kind == "CircuitOpen" else f"{function} cannot start.", retry
        )
    if show and failure is not None:
        return Answer(500, failure.traceback or f"{failure.type}: {failure.message}")
    return Answer(
        500, f"Internal Server Error: {function} failed; its log has the reason (call {call})."
    )


def refused(error: Error, retry: float) -> Answer:
    """What a client is told whose request was not taken. `retry`: seconds, of an open breaker."""
    match error:
        case CircuitOpen():
            return unavailable(str(error), retry)
        case ResourceExhaustedError():
            return Answer(429, str(error), ((b"retry-after", b"1"),))
        case InvalidError():
            return Answer(422, str(error))
        case _:
            return Answer(404, str(error))


def unavailable(text: str, retry: float) -> Answer:
    return Answer(503, text, ((b"retry-after", str(max(1, math.ceil(retry))).encode()),))


async def give(send: Any, answer: Answer, head: bool = False) -> None:
    """Send an answer as plain text."""
    body = (answer.text + "\n").encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    if answer.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})
