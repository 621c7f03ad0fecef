"""`ServerApp`: requests passed on to a server that the user's function started on a port.

A small HTTP/1.1 client over asyncio streams: bodies stream both ways, and a WebSocket is spoken
frame by frame (websocket_client.py). Redirects and errors of the server go through as they are.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from minimodal.errors import InvalidError, StartupError
from minimodal.types import WebEndpoint

HOST = "127.0.0.1"
LOOK_EVERY = 0.02  # seconds between two looks whether the port accepts
LIMIT = 1 << 20  # bytes of a response's headers
PIECE = 64 * 1024

Head = tuple[int, list[tuple[bytes, bytes]]]


class ServerApp:
    """Made by `start` once the port accepts connections."""

    def __init__(self, port: int, function: str) -> None:
        self._port = port
        self._function = function

    @classmethod
    async def start(
        cls, endpoint: WebEndpoint, function: Callable[..., Any], name: str
    ) -> ServerApp:
        port = endpoint.port
        assert port is not None
        if await _accepts(port):
            raise StartupError(
                f"{name} cannot serve port {port}: another server has it. On this backend containers "
                "share the network; use one port for each function, or max_containers=1"
            )
        made = function()
        if inspect.isawaitable(made):
            await made
        until = time.monotonic() + endpoint.startup_timeout
        while not await _accepts(port):
            if time.monotonic() > until:
                raise StartupError(
                    f"{name} returned, but nothing accepts connections on port {port} after "
                    f"{endpoint.startup_timeout:g} s. Raise startup_timeout if it needs longer"
                )
            await asyncio.sleep(LOOK_EVERY)
        return cls(port, name)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            from .websocket_client import pass_on

            await pass_on(HOST, self._port, _target(scope), scope, receive, send)
            return
        try:
            reader, writer = await asyncio.open_connection(HOST, self._port, limit=LIMIT)
        except OSError:
            await self._gone(send)
            return
        upload = asyncio.get_running_loop().create_task(_upload(scope, receive, writer))
        try:
            await self._download(scope, reader, send)
        finally:
            upload.cancel()
            writer.close()

    async def _gone(self, send: Any) -> None:
        text = f"nothing answers on port {self._port} of {self._function} any more\n"
        head = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 502, "headers": head})
        await send({"type": "http.response.body", "body": text.encode()})

    async def _download(self, scope: Any, reader: asyncio.StreamReader, send: Any) -> None:
        status, headers = await _head(reader)
        while status in (100, 102, 103):
            status, headers = await _head(reader)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if scope["method"] != "HEAD" and status not in (204, 304):
            async for piece in _body(reader, dict(headers)):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _target(scope: Any) -> bytes:
    path: bytes = scope["raw_path"]
    root = scope.get("root_path", "").encode()
    path = (path[len(root) :] if root and path.startswith(root) else path) or b"/"
    query: bytes = scope["query_string"]
    return path + b"?" + query if query else path


async def _upload(scope: Any, receive: Any, writer: asyncio.StreamWriter) -> None:
    """The request, and its body as it comes."""
    names = {name for name, _ in scope["headers"]}
    message = await receive()
    more = message.get("more_body", False)
    chunked = b"content-length" not in names and (more or message.get("body"))
    lines = [scope["method"].encode() + b" " + _target(scope) + b" HTTP/1.1"]
    lines += [name + b": " + value for name, value in scope["headers"] if name != b"expect"]
    lines += [b"connection: close", *([b"transfer-encoding: chunked"] if chunked else [])]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    while message["type"] == "http.request":
        body = message.get("body", b"")
        if body:
            writer.write(b"%x\r\n%b\r\n" % (len(body), body) if chunked else body)
        if not message.get("more_body"):
            if chunked:
                writer.write(b"0\r\n\r\n")
            break
        await writer.drain()
        message = await receive()


async def _head(reader: asyncio.StreamReader) -> Head:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
        line, *rest = raw[:-4].split(b"\r\n")
        status = int(line.split(b" ", 2)[1])
        headers = []
        for each in rest:
            name, _, value = each.partition(b":")
            headers.append((name.strip().lower(), value.strip()))
    except (
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        ValueError,
        IndexError,
    ) as error:
        raise InvalidError("the server in the container did not answer in HTTP") from error
    return status, headers


async def _body(reader: asyncio.StreamReader, headers: dict[bytes, bytes]) -> AsyncIterator[bytes]:
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            async for piece in _exactly(reader, size):
                yield piece
            await reader.readexactly(2)
    elif b"content-length" in headers:
        async for piece in _exactly(reader, int(headers[b"content-length"])):
            yield piece
    else:
        while piece := await reader.read(PIECE):
            yield piece


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise ConnectionError("the server in the container ended its response too soon")
        size -= len(piece)
        yield piece


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
