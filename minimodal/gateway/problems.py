"""Errors of the platform's API in the form of RFC 9457, from our own error tree."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse

from minimodal import errors

from . import answers
from .answers import Answer, Refused

_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.AuthError, 403),
    (errors.NotFoundError, 404),
    (errors.AlreadyExistsError, 409),
    (errors.ConflictError, 409),
    (errors.OutputExpiredError, 410),
    (FileNotFoundError, 404),
    (FileExistsError, 412),
    (IsADirectoryError, 409),
    (NotADirectoryError, 409),
    (errors.ResourceExhaustedError, 429),
    (errors.CircuitOpen, 503),
    (errors.RuntimeUnavailable, 503),
    (errors.InvalidError, 400),
    (errors.Error, 500),
    (ValueError, 400),
    (KeyError, 400),
    (TypeError, 400),
)


def status_of(error: BaseException) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


async def body_of(request: Request, limit: int, idle: float) -> AsyncIterator[bytes]:
    """The parts of a body, at most `limit` bytes, with `idle` seconds between two. Raises Refused."""
    size = 0
    parts = request.stream()
    while True:
        part = None
        with anyio.move_on_after(idle):
            part = await anext(parts, b"")
        if part is None:
            raise Refused(answers.TOO_SLOW)
        if not part:
            return
        size += len(part)
        if size > limit:
            raise Refused(answers.TOO_LARGE)
        yield part


def problem_response(error: BaseException) -> JSONResponse:
    """What a client of the API is told of an error."""
    if isinstance(error, Refused):
        return _response(error.answer.status, error.answer.text)
    return _response(status_of(error), str(error))


def not_found(detail: str) -> JSONResponse:
    return _response(404, detail)


def _response(status: int, detail: str) -> JSONResponse:
    made = problem(status, detail)
    return JSONResponse(made, status_code=status, media_type="application/problem+json")


def problem(status: int, detail: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }


async def refuse(send: Any, answer: Answer) -> None:
    """An answer of the guard, as JSON."""
    body = json.dumps(problem(answer.status, answer.text)).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
