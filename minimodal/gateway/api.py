"""The platform's JSON API under /api/v1: each route asks the engine one operation (resources.py)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from minimodal.errors import InvalidError

from . import volume_files
from .limits import Limits
from .problems import body_of, problem_response
from .resources import BASE, RESOURCES, Resource, openapi

if TYPE_CHECKING:
    from .seam import Ask

WAIT = 15.0  # seconds of one long poll; then a comment keeps the stream alive
STREAM_FILTERS = ("app", "function", "call", "container")


def routes(ask: Ask, limits: Limits) -> list[Route]:
    """All routes of the API."""
    made = [
        Route(BASE + each.path, _endpoint(each, ask, limits), methods=[each.method])
        for each in RESOURCES
    ]
    made += [
        Route(BASE, _index, methods=["GET"]),
        Route(f"{BASE}/openapi.json", _document, methods=["GET"]),
        Route(f"{BASE}/logs", _follow(ask, ("log",)), methods=["GET"]),
        Route(f"{BASE}/events", _follow(ask, ()), methods=["GET"]),
        *volume_files.routes(BASE, ask, limits),
    ]
    return made


def _endpoint(resource: Resource, ask: Ask, limits: Limits) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        fields: dict[str, Any] = dict(resource.fixed)
        try:
            for name, text in request.path_params.items():
                fields[name] = [text] if name in resource.lists else text
            for name, kind in resource.query.items():
                if name in request.query_params:
                    fields[name] = _typed(request, name, kind)
            if resource.writes:
                fields.update(await _body(request, resource, limits))
            reply = await ask(resource.op, **fields)
        except Exception as error:
            return problem_response(error)
        return JSONResponse(dict(reply.fields))

    return answer


def _typed(request: Request, name: str, kind: str) -> Any:
    text = request.query_params[name]
    try:
        match kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "array":
                values = request.query_params.getlist(name)
                return [part for value in values for part in value.split(",") if part]
    except ValueError:
        raise InvalidError(f"{name} must be of type {kind}, not {text!r:.60}") from None
    return text


async def _body(request: Request, resource: Resource, limits: Limits) -> dict[str, Any]:
    parts = [part async for part in body_of(request, limits.api_body_bytes, limits.body_idle)]
    if not parts:
        return {}
    try:
        given = json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise InvalidError("the body is not JSON") from None
    if not isinstance(given, dict) or set(given) - set(resource.body):
        allowed = ", ".join(resource.body) or "nothing"
        raise InvalidError(f"the body must be an object with {allowed}")
    return given


async def _index(request: Request) -> Response:
    links = {each.path.strip("/"): BASE + each.path for each in RESOURCES if "{" not in each.path}
    return JSONResponse({"openapi": f"{BASE}/openapi.json", "links": links})


async def _document(request: Request) -> Response:
    return JSONResponse(openapi())


def _follow(ask: Ask, kinds: tuple[str, ...]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        fields = {n: request.query_params[n] for n in STREAM_FILTERS if n in request.query_params}
        given = request.headers.get("last-event-id") or request.query_params.get("after")
        try:
            after = None if given is None else int(given)
            first = await ask("event.list", after=after, kinds=list(kinds), **fields)
        except Exception as error:
            return problem_response(error)
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(dict(first.fields))
        stream = _events(ask, dict(first.fields), list(kinds), fields)
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    return answer


async def _events(
    ask: Ask, answer: dict[str, Any], kinds: list[str], fields: dict[str, str]
) -> AsyncIterator[str]:
    """What has happened, then what happens; a comment from time to time shows who has left."""
    yield ": minimodal\n\n"
    while True:
        for event in answer["events"]:
            text = json.dumps(event)
            yield f"id: {event['number']}\nevent: {event['kind']}\ndata: {text}\n\n"
        if not answer["events"]:
            yield ": still here\n\n"
        reply = await ask("event.list", after=answer["last"], timeout=WAIT, kinds=kinds, **fields)
        answer = dict(reply.fields)
