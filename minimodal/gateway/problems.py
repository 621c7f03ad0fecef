"""Errors of the platform's API in the form of RFC 9457, from our own error tree."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from minimodal import errors

from .answers import Answer

_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (errors.AuthError, 403),
    (errors.NotFoundError, 404),
    (errors.AlreadyExistsError, 409),
    (errors.ConflictError, 409),
    (errors.OutputExpiredError, 410),
    (FileNotFoundError, 404),
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


class TooLarge(Exception):
    """The body of a request to the platform is over its limit."""


def problem_response(error: BaseException) -> JSONResponse:
    """What a client of the API is told of an error."""
    if isinstance(error, TooLarge):
        return _response(413, "the request's body is too large")
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
