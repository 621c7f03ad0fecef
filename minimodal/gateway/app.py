"""`Gateway`: the ASGI app behind the port. Decides who answers, and keeps count."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from minimodal.types import WebEndpoint, WebRoute

from . import answers
from .answers import Answer
from .headers import value
from .hosts import Goal, Kind, goal_of, name_of
from .http_exchange import Cut, HttpExchange
from .limits import Limits
from .websocket_exchange import WebSocketExchange, deny

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .guard import Guard
    from .seam import WebHost

log = logging.getLogger("minimodal.gateway")

# Counts one finished request: route (None: the platform's own), method, status, seconds.
Observe = Callable[[WebRoute | None, str, int, float], None]


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

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        started = time.perf_counter()
        if not _in_form(scope):
            await refuse(scope, send, Answer(400, "The request is not well formed."))
            return
        if _head_bytes(scope) > self.limits.header_bytes:
            await refuse(scope, send, Answer(431, "The request's headers are too large."))
            return
        host = value(scope["headers"], b"host") or ""
        method = scope.get("method", "GET")
        goal = goal_of(host, scope["path"], method, self.web.routes(), self._names)
        if goal.kind is Kind.PLATFORM:
            await self._platform(scope, receive, send)
            return
        if goal.route is None:
            await refuse(scope, send, self._nowhere(goal, host, method))
            return
        elsewhere = own_origin(scope, goal)
        if elsewhere is not None:
            await refuse(scope, send, Answer(307, "", ((b"location", elsewhere),)))
            return
        if goal.route.endpoint.requires_auth:
            refusal = self._guard.endpoint_refusal(scope)
            if refusal is not None:
                await refuse(scope, send, refusal)
                return
        await self._serve(goal.route, goal.prefix, started, scope, receive, send)

    def user_of(self, scope: Any) -> str:
        """Whose calls the requests of this client are: its token's user, if it shows one."""
        return self._guard.user_of(scope)

    async def _serve(
        self, route: WebRoute, prefix: str, started: float, scope: Any, receive: Any, send: Any
    ) -> None:
        kind = WebSocketExchange if scope["type"] == "websocket" else HttpExchange
        exchange = kind(self, scope, receive, send, route, prefix)
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
            self._observe(route, scope.get("method", "WEBSOCKET"), exchange.status, seconds)

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


def own_origin(scope: Any, goal: Goal) -> bytes | None:
    """Where a browser is sent that opens the path form: to a host name of the endpoint's own.

    Its scripts would else have the origin of the platform, which asks nobody on loopback for a token.
    Programs, and browsers under another name than loopback's, are served where they ask.
    """
    headers = scope["headers"]
    host = value(headers, b"host") or ""
    is_local = name_of(host) == "localhost" or name_of(host).startswith("127.")
    is_page = value(headers, b"sec-fetch-mode") == "navigate"
    if goal.route is None or not goal.prefix or not is_local or not is_page:
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


def _head_bytes(scope: Any) -> int:
    """The parser bounds what it waits for; a head that came at once is measured here."""
    size = len(scope["raw_path"]) + len(scope["query_string"])
    return size + sum(len(name) + len(text) + 4 for name, text in scope["headers"])


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
