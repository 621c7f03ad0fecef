"""`Web`: which functions answer HTTP, and opening a request to one of them.

The gateway's only way into the engine besides `ask`. Knows nothing of sockets, hosts or ports: who
serves them says so with `serve_with`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from minimodal import parameters, pickling
from minimodal.errors import NotFoundError, ResourceExhaustedError
from minimodal.options import variant_name
from minimodal.protocols import Reply
from minimodal.types import Call, FunctionSpec, Payload, WebEndpoint, WebRoute, new_id

from .exchange import Exchange, web_of
from .ops import USER, Caller, Fields

if TYPE_CHECKING:
    from .engine import Engine

Serve = Callable[[], Awaitable[None]]
UrlOf = Callable[[WebEndpoint], str]

MAX_OBJECTS = 256  # of classes, with parameters from a URL


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
        self._objects: dict[tuple[str, str], str] = {}  # pools that queries asked for
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

    def urls(self, app_id: str) -> dict[str, str]:
        """Where the endpoints of an app are: "function" or "Class.method", and its URL."""
        if self._url_of is None:
            return {}
        return {
            f"{route.function}.{route.method}" if route.method else route.function: self._url_of(
                route.endpoint
            )
            for route in reversed(self.routes())
            if self._engine.pools[route.key].spec.app == app_id
        }

    def open(
        self, route: WebRoute, request: bytes, query: bytes = b"", user: str = "default"
    ) -> Exchange:
        """Start a request. `query`: of its URL, where the parameters of a class are looked for.

        Raises NotFoundError, InvalidError (a parameter), CircuitOpen or ResourceExhaustedError.
        """
        self._engine.cork.hold(self._engine.loop)
        call = Call(
            id=new_id("fc"),
            function=self._object(route, query),
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

    def _object(self, route: WebRoute, query: bytes) -> str:
        """The key of the pool that is to answer: of a class, the object with these parameters."""
        pool = self._engine.pool_of(route.key)
        declared = pool.spec.shape.parameters if pool.spec.shape else ()
        if not declared:
            return route.key
        given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        values = parameters.from_query(pool.name, declared, given)
        if parameters.are_defaults(declared, values):
            return route.key
        changes = {"arguments": parameters.identity(values)}
        variant = variant_name(changes)
        known = self._objects.get((route.key, variant))
        if known in self._engine.pools:
            return known
        self._make_room(pool.name)
        before = len(self._engine.pools)
        fields = {"key": route.key, "changes": changes, "variant": variant}
        reply = self._engine.ops.find("function.variant")(
            USER, fields, pickling.dumps(((), values))
        )
        assert isinstance(reply, Reply)
        key: str = reply.fields["key"]
        if len(self._engine.pools) > before:  # else somebody's handle has made it, and counts on it
            self._objects[route.key, variant] = key
        return key

    def _make_room(self, name: str) -> None:
        """A stranger can ask for any number of objects: only so many have pools at a time."""
        pools = self._engine.pools
        self._objects = {what: key for what, key in self._objects.items() if key in pools}
        idle = [what for what, key in self._objects.items() if not pools[key].unfinished]
        for what in idle[: max(0, len(self._objects) - MAX_OBJECTS + 1)]:
            self._engine.remove_pool(pools[self._objects.pop(what)])
        if len(self._objects) < MAX_OBJECTS:
            return
        raise ResourceExhaustedError(
            f"{name}: requests use {MAX_OBJECTS} objects with parameters of their own at this time"
        )

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
