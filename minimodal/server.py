"""`Server`: a class whose `@enter` starts an HTTP server of its own, which requests are passed on to.

It is a class with one web endpoint, `serve`, which runs the `@enter` methods and names the port.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from . import parameters
from .cls import KIND, Cls
from .endpoints import OPTIONS, web_server
from .errors import InvalidError
from .face import both
from .function import Function
from .methods import hooks_of, method, methods_of
from .options import Options
from .policy import concurrent

T = TypeVar("T")

METHOD = "serve"
MAX_REQUESTS = 1000  # of one container at once: what it can bear is its server's to say


class Server(Cls[T]):
    """A class behind a URL. Made by `@app.server(port=…)` or `Server.from_name`."""

    @both
    async def get_url(self) -> str | None:
        """The URL of its server. Opens its app if need be."""
        endpoint: Function[[], None, Any] = getattr(self(), METHOD)
        return await endpoint.get_web_url._function()

    @both
    async def _experimental_get_flash_urls(self) -> list[str | None]:
        """Modal's older name: a URL for each region."""
        return [await self.get_url._function()]

    @property
    def update_autoscaler(self) -> Any:
        """Change its bounds: see `Function.update_autoscaler`."""
        obj: Any = self()
        return obj.update_autoscaler

    @staticmethod
    def from_name(
        app_name: str, name: str, *, environment_name: str | None = None, version: Any = None
    ) -> Server[Any]:
        """The server `name` of the app `app_name` that is deployed, or runs now, here. Does no I/O."""
        del environment_name, version
        return Server(None, None, name, Options(), key=f"{app_name}/{name}")


def serving(
    what: str, port: int, startup_timeout: float, auth: bool, target: float | None
) -> Callable[[type[T]], type[T]]:
    """Give a class its endpoint. Raises InvalidError, naming `what`, for a class that cannot serve."""

    def decorate(raw: type[T]) -> type[T]:
        if not inspect.isclass(raw):
            raise InvalidError(f"{what} decorates a class, not {raw!r}")
        if methods_of(raw) or parameters.collect(raw):
            raise InvalidError(
                f"{what}: {raw.__name__} is reached by HTTP alone, without @method and parameter()"
            )
        enters = hooks_of(raw, "enter", snap=True) + hooks_of(raw, "enter")
        if not enters:
            raise InvalidError(f"{what}: {raw.__name__} needs an @enter that starts its server")
        starts = [getattr(raw, name) for name in enters]
        for name, start in zip(enters, starts, strict=True):
            setattr(raw, name, _unmarked(start))

        async def serve(self: T) -> None:
            for start in starts:
                made = start(self)
                if inspect.isawaitable(made):
                    await made

        serve.__qualname__ = f"{raw.__qualname__}.{METHOD}"
        serve.__module__ = raw.__module__
        serve = web_server(port, startup_timeout=startup_timeout, requires_proxy_auth=auth)(serve)
        endpoint: Any = method()(serve)
        endpoint.__set_name__(raw, METHOD)
        setattr(raw, METHOD, endpoint)
        setattr(raw, KIND, Server)
        given = getattr(raw, OPTIONS, {})
        wanted = target or given.get("target_inputs") or given.get("max_inputs")
        most = max(MAX_REQUESTS, given.get("max_inputs") or 0)
        return concurrent(max_inputs=most, target_inputs=round(wanted) or 1 if wanted else None)(
            raw
        )

    return decorate


def _unmarked(start: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The method without its @enter: `serve` runs it, when the port is known to be free."""

    def run(self: Any) -> Any:
        return start(self)

    return run
