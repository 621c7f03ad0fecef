"""`SimpleApp`: a function of `@app.web_endpoint` as an ASGI app, with the standard library alone."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qsl

from minimodal.endpoints import match_path
from minimodal.types import WebEndpoint
from minimodal.web_requests import (
    BadRequest,
    WebRequest,
    arguments,
    method_allowed,
    problem,
    response_of,
)


class SimpleApp:
    """Reads the whole request, binds arguments by name, sends what the function returns."""

    def __init__(
        self, endpoint: WebEndpoint, function: Callable[..., Any], threads: ThreadPoolExecutor
    ) -> None:
        self._endpoint = endpoint
        self._function = function
        self._threads = threads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        status, headers, body = await self._answer(scope, receive)
        if scope["method"] == "HEAD":
            body = b""
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Any, receive: Any) -> tuple[int, Any, bytes]:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        places = match_path(self._endpoint.path, path)
        if places is None:
            return problem(404, "Not Found")
        if not method_allowed(self._endpoint, scope["method"]):
            return problem(405, "Method Not Allowed")
        request = await _read(scope, receive, path, places)
        try:
            given = arguments(self._function, request)
        except BadRequest as error:
            return problem(422, error.details)
        return response_of(await self._call(given))

    async def _call(self, given: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function(**given)
        run = contextvars.copy_context().run
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: run(self._function, **given))


async def _read(scope: Any, receive: Any, path: str, places: dict[str, str]) -> WebRequest:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError("the client left before its request was whole")
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    query = scope["query_string"].decode("latin-1")
    return WebRequest(
        method=scope["method"],
        path=path,
        path_params=places,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
        body=b"".join(parts),
        query_string=query,
        client=scope["client"][0] if scope.get("client") else "",
    )
