"""The platform's own pages behind one guard: API, metrics, dashboard; and headers that protect them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import api, problems
from .dashboard.views import Dashboard
from .guard import SAFE, Guard
from .limits import Limits
from .metrics import CONTENT_TYPE, Metrics

if TYPE_CHECKING:
    from .seam import Ask

log = logging.getLogger("minimodal.gateway")

PROTECTION = (
    (b"content-security-policy", b"default-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Platform:
    """An ASGI app."""

    def __init__(self, ask: Ask, guard: Guard, metrics: Metrics, limits: Limits) -> None:
        self._guard = guard

        async def scrape(request: Request) -> Response:
            reply = await ask("function.tally")
            return Response(metrics.text(reply.fields), media_type=CONTENT_TYPE)

        routes = [
            *api.routes(ask, limits),
            Route("/metrics", scrape),
            *Dashboard(ask, metrics.statuses).routes,
        ]
        self._app = Starlette(routes=routes, exception_handlers={404: _not_found})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            from .answers import Answer
            from .websocket_exchange import deny

            await deny(scope, send, Answer(403, "The platform has no WebSocket."))
            return

        async def protected(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *PROTECTION]
            await send(message)

        refusal = self._guard.refusal(scope, write=scope["method"] not in SAFE)
        if refusal is not None:
            await problems.refuse(protected, refusal)
            return
        await self._app(scope, receive, protected)


async def _not_found(request: Request, error: Exception) -> Response:
    return problems.not_found("There is nothing at this address.")
