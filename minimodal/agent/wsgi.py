"""`WsgiApp`: a WSGI app (PEP 3333) as an ASGI app. Each request runs in one of the input's threads.

The body is read and the response sent while the app runs, piece by piece through the loop, so
neither is held whole.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class WsgiApp:
    """Calls `app(environ, start_response)` in a thread."""

    def __init__(self, app: Callable[..., Iterable[bytes]], threads: ThreadPoolExecutor) -> None:
        self._app = app
        self._threads = threads

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        loop = asyncio.get_running_loop()
        exchange = _Exchange(loop, receive, send)
        body = io.BufferedReader(_Body(exchange), 64 * 1024)
        run = contextvars.copy_context().run
        await loop.run_in_executor(
            self._threads, lambda: run(exchange.run, self._app, environ(scope, body))
        )


class _Exchange:
    """The thread's side of one request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Any, send: Any) -> None:
        self._loop = loop
        self._receive = receive
        self._send = send
        self._head: dict[str, Any] | None = None
        self._sent = False  # the head has left

    def wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = self.wait(self._receive())
        return message

    def run(self, app: Callable[..., Iterable[bytes]], environment: dict[str, Any]) -> None:
        items = app(environment, self.start_response)
        try:
            # A piece is sent when it comes; only where there is one is it known to be the last.
            if isinstance(items, (list, tuple)) and len(items) == 1:
                self.wait(self._last(items[0]))
                return
            for piece in items:
                if piece:
                    self.write(piece)
            self.wait(self._last(b""))
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if self._head is not None and exc_info is None:
            raise AssertionError("start_response was called twice without exc_info")
        self._head = {
            "type": "http.response.start",
            "status": int(status.split(" ", 1)[0]),
            "headers": [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers],
        }
        return self.write

    def write(self, data: bytes) -> None:
        self.wait(self._write(data, True))

    async def _last(self, data: bytes) -> None:
        await self._write(data, False)

    async def _write(self, data: bytes, more: bool) -> None:
        if not self._sent:
            if self._head is None:
                raise RuntimeError("the WSGI app sent a body before it called start_response")
            self._sent = True
            await self._send(self._head)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


class _Body(io.RawIOBase):
    """`wsgi.input`."""

    def __init__(self, exchange: _Exchange) -> None:
        self._exchange = exchange
        self._rest = memoryview(b"")
        self._more = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest and self._more:
            message = self._exchange.receive()
            if message["type"] != "http.request":
                raise ConnectionError("the client left before its request was whole")
            self._rest = memoryview(message.get("body", b""))
            self._more = bool(message.get("more_body"))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def environ(scope: dict[str, Any], body: Any) -> dict[str, Any]:
    """The WSGI environment of an ASGI scope."""
    root = scope.get("root_path", "")
    path = scope["path"]
    path = path[len(root) :] if root and path.startswith(root) else path
    host, port = scope.get("server") or ("localhost", 80)
    environment: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": (scope.get("client") or ("", 0))[0],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        known = environment.get(key)
        separator = "; " if key == "HTTP_COOKIE" else ","
        environment[key] = value if known is None else f"{known}{separator}{value}"
    return environment
