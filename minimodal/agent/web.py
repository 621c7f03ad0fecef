"""The web endpoints of a container: apps made once, their lifespans, and requests handed to them.

Every kind of endpoint ends as one ASGI callable. What a kind needs of its own is in wsgi.py,
simple_web.py and proxy.py, imported when it is used.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minimodal.codec import from_plain
from minimodal.errors import InvalidError, StartupError
from minimodal.types import WebEndpoint

from .conversation import Conversation
from .target import Start, Target

AsgiApp = Callable[[dict[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]

SHUTDOWN_WITHIN = 4.0  # seconds; the engine gives the whole container 5


class WebApps:
    """The apps of one executor, by the method's name ("" of a function)."""

    def __init__(self, start: Start, target: Target, threads: ThreadPoolExecutor) -> None:
        plain = start.fields.get("web") or {}
        self.endpoints = {name: from_plain(WebEndpoint, each) for name, each in plain.items()}
        self._function = start.fields["function"]
        self._target = target
        self._threads = threads
        self._apps: dict[str, _Lifespan] = {}

    async def start(self) -> None:
        """Make the apps and run their startup. What that raises fails the container's start."""
        for name, endpoint in self.endpoints.items():
            function = self._target.callable(name)
            app = await self._make(endpoint, function)
            lifespan = _Lifespan(app, f"{self._function}{'.' + name if name else ''}")
            if endpoint.kind in ("asgi", "fastapi"):
                await lifespan.start()
            self._apps[name] = lifespan

    async def stop(self) -> None:
        for lifespan in self._apps.values():
            await lifespan.stop()

    def state(self, method: str) -> dict[str, Any]:
        return self._apps[method].state

    async def serve(self, method: str, conversation: Conversation) -> None:
        """Answer one request. Raises what the app raises, and where it left its answer unfinished."""
        await self._apps[method].app(conversation.scope, conversation.receive, conversation.send)
        if not (conversation.complete or conversation.gone or conversation.is_websocket):
            raise RuntimeError(f"{self._function} ended a request without completing its response")

    async def _make(self, endpoint: WebEndpoint, function: Callable[..., Any]) -> AsgiApp:
        match endpoint.kind:
            case "asgi":
                return _checked(function(), self._function)
            case "wsgi":
                from .wsgi import WsgiApp

                return WsgiApp(function(), self._threads)
            case "fastapi":
                return _fastapi(endpoint, function, self._function)
            case "simple":
                from .simple_web import SimpleApp

                return SimpleApp(endpoint, function, self._threads)
            case "server":
                from .proxy import ServerApp

                return await ServerApp.start(endpoint, function, self._function)
            case kind:
                raise InvalidError(f"{self._function}: this image's agent knows no {kind} endpoint")


def _checked(app: Any, function: str) -> AsgiApp:
    if inspect.isawaitable(app) or not callable(app):
        if inspect.iscoroutine(app):
            app.close()
        raise InvalidError(f"{function} must return an ASGI app, and it returned {app!r}")
    call = app.__call__ if not inspect.isfunction(app) else app
    if not inspect.iscoroutinefunction(call) and len(inspect.signature(app).parameters) == 2:
        raise InvalidError(
            f"{function} returned a WSGI app: use @wsgi_app() in place of @asgi_app()"
        )
    made: AsgiApp = app
    return made


def _fastapi(endpoint: WebEndpoint, function: Callable[..., Any], name: str) -> AsgiApp:
    try:
        import fastapi  # type: ignore[import-not-found,unused-ignore]  # only in the image
        from fastapi.middleware.cors import (  # type: ignore[import-not-found,unused-ignore]
            CORSMiddleware,
        )
    except ImportError as error:
        raise InvalidError(
            f"{name} is a @fastapi_endpoint, and its image has no FastAPI ({error}). Add "
            'Image.debian_slim().pip_install("fastapi[standard]"), or use @app.web_endpoint, which '
            "needs no framework"
        ) from None
    docs = endpoint.docs
    app = fastapi.FastAPI(
        title=name,
        openapi_url="/openapi.json" if docs else None,
        docs_url="/docs" if docs else None,
        redoc_url=None,
    )
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    app.add_api_route("/", function, methods=[endpoint.method])
    made: AsgiApp = app
    return made


class _Lifespan:
    """An app and its lifespan, if it has one: startup before the first request, shutdown at the end."""

    def __init__(self, app: AsgiApp, name: str) -> None:
        self.app = app
        self.state: dict[str, Any] = {}
        self._name = name
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._failure: str | None = None
        self._error: BaseException | None = None
        self._supported = True
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._to_app.put_nowait({"type": "lifespan.startup"})
        # The executor's loop is this process's own; `stop` ends the task.
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._started.wait()
        if self._failure is not None:
            raise StartupError(
                f"the lifespan startup of {self._name} failed: {self._failure}"
            ) from self._error

    async def stop(self) -> None:
        if self._task is None or not self._supported:
            return
        self._to_app.put_nowait({"type": "lifespan.shutdown"})
        _, waiting = await asyncio.wait(
            [asyncio.get_running_loop().create_task(self._stopped.wait())], timeout=SHUTDOWN_WITHIN
        )
        for each in waiting:
            each.cancel()
        if not self._task.done():
            self._task.cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self.app(scope, self._to_app.get, self._send)
        except asyncio.CancelledError:
            pass  # by stop(), whose patience is over
        except BaseException as error:
            # Before an answer it means: this app has no lifespan.
            if self._started.is_set():
                import traceback

                traceback.print_exc()
            self._error = error
        finally:
            self._supported = self._started.is_set() and self._failure is None
            self._started.set()
            self._stopped.set()

    async def _send(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._started.set()
            case "lifespan.startup.failed":
                self._failure = message.get("message") or "no reason was given"
                self._started.set()
            case "lifespan.shutdown.complete" | "lifespan.shutdown.failed":
                if message.get("message"):
                    import sys

                    sys.stderr.write(message["message"] + "\n")
                self._stopped.set()
