"""The dashboard's routes: pages, assets, and the stream that keeps a page live."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from importlib import resources
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from minimodal.errors import Error

from . import pages
from .pages import log_line
from .sections import OVERVIEW
from .snapshot import Snapshots
from .words import Html, join

if TYPE_CHECKING:
    from minimodal.gateway.seam import Ask

ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
TICK = 1.0  # seconds between two looks at what has changed
LINES = 300  # of the log that a page starts with


class Dashboard:
    """Handlers over one engine."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._snapshots = Snapshots(ask)
        self.routes = [
            Route("/", self._overview),
            Route("/-/calls", self._calls),
            Route("/-/calls/{id}", self._call),
            Route("/-/logs", self._logs),
            Route("/-/live", self._live),
            Route("/-/assets/{name}", self._asset),
        ]

    async def _overview(self, request: Request) -> Response:
        return HTMLResponse(pages.overview(await self._snapshots.get()))

    async def _calls(self, request: Request) -> Response:
        given = {k: v for k, v in request.query_params.items() if v}
        fields: dict[str, Any] = {"limit": 300}
        if "state" in given:
            fields["states"] = [given["state"]]
        if "function" in given:
            fields["function"] = given["function"]
        try:
            rows = (await self._ask("call.list", **fields)).fields["calls"]
        except Error:
            rows = []
        return HTMLResponse(pages.calls(await self._snapshots.get(), rows, given))

    async def _call(self, request: Request) -> Response:
        try:
            reply = await self._ask("call.show", id=request.path_params["id"])
        except Error as error:
            return HTMLResponse(pages.missing(str(error)), 404)
        return HTMLResponse(pages.call(await self._snapshots.get(), reply.fields))

    async def _logs(self, request: Request) -> Response:
        events, _ = await self._lines(0, 0.0)
        return HTMLResponse(pages.logs(events[-LINES:]))

    async def _lines(self, after: int | None, wait: float) -> tuple[list[dict[str, Any]], int]:
        try:
            reply = await self._ask("event.list", after=after, timeout=wait, kinds=["log"])
        except Error:
            return [], after or 0
        return reply.fields["events"], reply.fields["last"]

    async def _live(self, request: Request) -> Response:
        seen = request.headers.get("last-event-id", "")
        page = request.query_params.get("page", "overview")
        # A page of logs comes with its lines; the overview starts with the last ones.
        after = int(seen) if seen.isdigit() else (None if page == "logs" else 0)
        stream = self._stream(page, after)
        headers = {"cache-control": "no-store"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _stream(self, page: str, after: int | None) -> AsyncIterator[str]:
        """Everything once, then what changes: who reconnects has the whole state again."""
        sent: dict[str, str] = {}
        wait = 0.0
        while True:
            started = time.monotonic()
            events, after = await self._lines(after, wait)
            if events:
                html = join(log_line(each) for each in events[-LINES:])
                yield _event("lines", {"html": html}, after)
            elif wait:
                yield ": still here\n\n"
            if page == "overview":
                snapshot = await self._snapshots.get()
                for name, (_, section, op) in OVERVIEW.items():
                    html = section(snapshot) if snapshot.has(op) else Html("")
                    if sent.get(name) != html:
                        sent[name] = html
                        yield _event("section", {"name": name, "html": html})
            left = TICK - (time.monotonic() - started)
            if left > 0 and (events or not wait):
                # At most one update a second, however much is printed.
                import anyio

                await anyio.sleep(left)
            wait = TICK

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return HTMLResponse(pages.missing("No such file."), 404)
        content = resources.files(__package__).joinpath(name).read_bytes()
        return Response(content, media_type=ASSETS[name], headers={"cache-control": "no-cache"})


def _event(kind: str, data: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"
