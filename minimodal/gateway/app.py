"""`Gateway`: the ASGI app behind the port. Decides who answers, and keeps count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from minimodal.types import WebEndpoint, WebRoute

from . import answers
from .answers import Answer
from .hosts import Goal, Kind, goal_of, name_of
from .http_exchange import Cut, HttpExchange
from .limits import Limits
from .websocket_exchange import WebSocketExchange, deny

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .guard import Guard
    from .seam import WebHost

log = logging.getLogger("minimodal.gateway")

KNOWN_GOALS = 1024  # that are remembered
KNOWN_BYTES = 256  # of the host and path of one

# Counts one finished request: route, status, seconds.
Observe = Callable[[WebRoute, int, float], None]


class Gateway:
    """One per engine. `platform` is the ASGI app of the API and the dashboard."""

    def __init__(
        self,
        web: WebHost,
        tasks: TaskGroup,
        platform: Any,
        *,
        limits: Limits,
        show_errors: bool = False,
        names: tuple[str, ...] = (),
        observe: Observe = lambda *_: None,
        guard: Guard,
    ) -> None:
        self.web = web
        self.tasks = tasks
        self.limits = limits
        self.show_errors = show_errors
        self._names = names
        self._platform = platform
        self._observe = observe
        self._guard = guard
        self._routes: Sequence[WebRoute] = ()
        self._goals: dict[tuple[str, str, str], Goal] = {}  # on these routes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started = time.perf_counter()
        if not _in_form(scope):
            await refuse(scope, send, Answer(400, "The request is not well formed."))
            return
        last = dict(scope["headers"])  # of each header its last value
        host = last.get(b"host", b"").decode("latin-1")
        method = scope.get("method", "GET")
        goal = self._goal(host, scope["path"], method)
        if goal.kind is Kind.PLATFORM:
            await self._platform(scope, receive, send)
            return
        if goal.route is None:
            await refuse(scope, send, self._nowhere(goal, host, method))
            return
        elsewhere = own_origin(scope, last, goal)
        if elsewhere is not None:
            await refuse(scope, send, Answer(307, "", ((b"location", elsewhere),)))
            return
        if goal.route.endpoint.requires_auth:
            refusal = self._guard.endpoint_refusal(scope)
            if refusal is not None:
                await refuse(scope, send, refusal)
                return
        kind = WebSocketExchange if scope["type"] == "websocket" else HttpExchange
        exchange = kind(self, scope, last, receive, send, goal.route, goal.prefix)
        await self._serve(goal.route, exchange, started)

    def user_of(self, last: Mapping[bytes, bytes]) -> str:
        """Whose calls the requests of this client are: its token's user, if it shows one."""
        return self._guard.user_of(last)

    def _goal(self, host: str, path: str, method: str) -> Goal:
        """Where a request goes; what is asked for often is found at once."""
        routes = self.web.routes()
        if routes is not self._routes or len(self._goals) >= KNOWN_GOALS:
            self._routes, self._goals = routes, {}
        goal = self._goals.get((host, path, method))
        if goal is None:
            goal = goal_of(host, path, method, routes, self._names)
            if len(host) + len(path) < KNOWN_BYTES:
                self._goals[host, path, method] = goal
        return goal

    async def _serve(
        self, route: WebRoute, exchange: HttpExchange | WebSocketExchange, started: float
    ) -> None:
        try:
            await exchange.run()
        except Cut as cut:
            log.info("cut off: %s", cut)
            raise  # the server closes the connection
        except Exception:
            log.exception("request to %s failed", route.function)
            raise
        finally:
            seconds = time.perf_counter() - started
            self._observe(route, exchange.status, seconds)

    def _nowhere(self, goal: Goal, host: str, method: str) -> Answer:
        if goal.kind is Kind.FOREIGN:
            return Answer(403, f"{host!r} is no name of this server. Use localhost.")
        if goal.kind is Kind.WRONG_METHOD:
            allow = ", ".join(goal.methods)
            status = 204 if method == "OPTIONS" else 405
            return Answer(
                status, "" if status == 204 else f"Allowed: {allow}", ((b"allow", allow.encode()),)
            )
        labels = sorted({route.endpoint.label for route in self.web.routes()})
        here = f" Endpoints here: {', '.join(labels)}." if labels else " No endpoint runs here."
        return Answer(404, "Not found." + here)


def url_of(endpoint: WebEndpoint, port: int, by_name: bool) -> str:
    """The URL of an endpoint; `by_name`: this machine resolves `*.localhost`."""
    path = endpoint.path if endpoint.kind == "simple" else ""
    if by_name:
        return f"http://{endpoint.label}.localhost:{port}{path}"
    return f"http://localhost:{port}/{endpoint.label}{path}"


def own_origin(scope: Any, last: Mapping[bytes, bytes], goal: Goal) -> bytes | None:
    """Where a browser is sent that opens the path form: to a host name of the endpoint's own.

    Its scripts would else have the origin of the platform, which asks nobody on loopback for a token.
    Programs, and browsers under another name than loopback's, are served where they ask.
    """
    if last.get(b"sec-fetch-mode") != b"navigate" or goal.route is None or not goal.prefix:
        return None
    host = last.get(b"host", b"").decode("latin-1")
    name = name_of(host)
    if name != "localhost" and not name.startswith("127."):
        return None
    port = host.rpartition(":")[2]
    path = (scope["raw_path"] or b"/")[len(goal.prefix) :] or b"/"
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    return f"http://{goal.route.endpoint.label}.localhost:{port}".encode() + path + query


async def refuse(scope: Any, send: Any, answer: Answer) -> None:
    if scope["type"] == "websocket":
        await deny(scope, send, answer)
    elif answer.status == 204:
        headers = list(answer.headers)
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})
    else:
        await answers.give(send, answer, scope["method"] == "HEAD")


def _in_form(scope: Any) -> bool:
    """Mend an absolute-form target; False for what a careful server does not take."""
    path = scope["path"]
    if not path.startswith("/"):
        if path.lower().startswith(("http://", "https://")):
            target = urlsplit(scope["raw_path"].decode("latin-1"))
            scope["raw_path"] = (target.path or "/").encode("latin-1")
            scope["path"] = unquote(target.path or "/")
            scope["headers"] = [
                (name, target.netloc.encode("latin-1") if name == b"host" else text)
                for name, text in scope["headers"]
            ]
        else:
            return bool(path == "*" and scope.get("method") == "OPTIONS")
    return "\0" not in path
