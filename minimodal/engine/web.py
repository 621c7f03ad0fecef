"""`Web`: which functions answer HTTP, and opening a request to one of them.

The gateway's only way into the engine besides `ask`. Knows nothing of sockets, hosts or ports: who
serves them says so with `serve_with`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from minimodal.errors import NotFoundError
from minimodal.protocols import Reply
from minimodal.types import Call, FunctionSpec, Payload, WebEndpoint, WebRoute, new_id

from .exchange import Exchange, web_of
from .ops import Caller

if TYPE_CHECKING:
    from .engine import Engine

Fields = Mapping[str, Any]
Serve = Callable[[], Awaitable[None]]
UrlOf = Callable[[WebEndpoint], str]


async def _nobody() -> None:
    return None


class Web:
    """`engine.web`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._routes: list[WebRoute] | None = None
        self._serve: Serve = _nobody
        self._url_of: UrlOf | None = None
        self._home: Callable[[], str] = str
        engine.ops.add("web.url", self._url)
        engine.ops.add("web.routes", self._list)
        engine.ops.add("gateway.open", self._open_gateway)

    def serve_with(self, serve: Serve, url_of: UrlOf, home: Callable[[], str]) -> None:
        """`serve` is awaited before the first app with an endpoint opens; it starts the gateway.

        `home` is the URL of its own first page.
        """
        self._serve, self._url_of, self._home = serve, url_of, home

    async def prepare(self, specs: Iterable[FunctionSpec]) -> None:
        """Some app is about to open."""
        if any(web_of(spec) for spec in specs):
            await self._serve()

    def changed(self) -> None:
        """Apps or pools have come or gone."""
        self._routes = None

    def routes(self) -> list[WebRoute]:
        """All endpoints; of two with one label the one that was opened last comes first."""
        if self._routes is None:
            found = []
            for key, pool in reversed(self._engine.pools.items()):
                if pool.spec.app not in self._engine.apps or pool.spec.variant:
                    continue
                if key != pool.spec.key:
                    continue  # of a version that goes, or of one that is still to come
                for method, endpoint in web_of(pool.spec):
                    found.append(
                        WebRoute(key, method, endpoint, pool.app_name, pool.name, pool.spec.timeout)
                    )
            self._routes = found
        return self._routes

    def open(self, route: WebRoute, request: bytes, user: str = "default") -> Exchange:
        """Start a request. Raises NotFoundError, CircuitOpen or ResourceExhaustedError."""
        call = Call(
            id=new_id("fc"),
            function=route.key,
            payload=Payload(request),
            method=route.method,
            user=user,
            stream=True,
            web=True,
        )
        return Exchange(self._engine, self._engine.accept(call))

    def retry_after(self, route: WebRoute) -> float:
        """Seconds until a function whose containers fail may be tried again."""
        pool = self._engine.pools.get(route.key)
        return 1.0 if pool is None else pool.breaker.view(self._engine.loop.time()).retry_in

    # --- operations ----------------------------------------------------------------------------------

    async def _url(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The URL of a function's endpoint, None where it has none."""
        pool = self._engine.pool_of(fields["key"])
        wanted = fields.get("method") or ""
        endpoint = next((e for name, e in web_of(pool.spec) if name == wanted), None)
        if endpoint is None:
            return Reply({"url": None})
        await self._serve()
        if self._url_of is None:
            raise NotFoundError(f"{pool.name} has no URL: no gateway runs in this engine")
        return Reply({"url": self._url_of(endpoint)})

    async def _open_gateway(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Open the gateway if it is not open; the URL of the dashboard."""
        await self._serve()
        return Reply({"url": self._home()})

    def _list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        plain = [
            {
                "label": route.endpoint.label,
                "app": route.app,
                "function": route.function,
                "key": route.key,
                "kind": route.endpoint.kind,
                "path": route.endpoint.path,
                "method": route.endpoint.method,
                "url": self._url_of(route.endpoint) if self._url_of else None,
            }
            for route in self.routes()
        ]
        return Reply({"routes": plain})
