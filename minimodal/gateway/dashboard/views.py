"""The dashboard's routes: pages, assets, the stream that keeps a page live, and the saved run."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import anyio
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from minimodal.endpoints import match_path
from minimodal.errors import Error, NotFoundError

from . import pages
from .pages import PAGES, Maker, Page, log_line
from .snapshot import Snapshots, Statuses
from .words import join, unmoved

if TYPE_CHECKING:
    from minimodal.gateway.seam import Ask

ASSETS = {
    "style.css": "text/css; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
TICK = 1.0  # seconds between two looks at what has changed
EXPORTED = ("/", "/-/workers", "/-/schedules", "/-/endpoints", "/-/images", "/-/storage", "/-/settings")  # fmt: skip


class Dashboard:
    """Handlers over one engine. `statuses`: what endpoints answered."""

    def __init__(self, ask: Ask, statuses: Statuses) -> None:
        self._ask = ask
        self._snapshots = Snapshots(ask, statuses)
        self.routes = [
            Route("/-/live", self._live),
            Route("/-/export", self._export),
            Route("/-/assets/{name}", self._asset),
            *(Route(path, self._page) for path in PAGES),
        ]

    async def _make(self, path: str, query: Mapping[str, str]) -> Page:
        """Raises NotFoundError, also for what the page is about."""
        for pattern, maker in PAGES.items():
            found = match_path(pattern, path)
            if found is not None:
                return await self._made(maker, {**query, **found})
        raise NotFoundError("There is no such page.")

    async def _made(self, maker: Maker, given: Mapping[str, str]) -> Page:
        return await maker(await self._snapshots.get(), self._ask, given)

    async def _page(self, request: Request) -> Response:
        # The path as it was sent: a function's key has a slash of its own, as %2F.
        raw = request.scope["raw_path"].decode("latin-1")
        try:
            page = await self._make(raw, dict(request.query_params))
        except Error as error:
            return HTMLResponse(pages.missing(str(error)), 404)
        events: list[dict[str, Any]] = []
        last = 0
        if page.output is not None:
            events, last = await pages.lines(self._ask, page.output, 0, 0.0)
        return HTMLResponse(pages.whole(page, events[-pages.LINES :], last))

    # --- live ----------------------------------------------------------------------------------------

    async def _live(self, request: Request) -> Response:
        at = urlsplit(request.query_params.get("at", "/"))
        seen = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(seen) if seen.isdecimal() else None
        query = dict(parse_qsl(at.query))
        stream = self._stream(at.path, query, after)
        headers = {"cache-control": "no-store"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    async def _stream(
        self, path: str, query: Mapping[str, str], after: int | None
    ) -> AsyncIterator[str]:
        """Everything once, then what changes: who reconnects has the whole state again."""
        sent: dict[str, str] = {}
        while True:
            started = time.monotonic()
            try:
                page = await self._make(path, query)
            except Error as error:
                yield _event("gone", {"text": str(error)})
                return
            for part in page.parts:
                still = unmoved(part.body)
                if part.name and sent.get(part.name) != still:
                    sent[part.name] = still
                    yield _event("section", {"name": part.name, "html": part.body})
            left = max(0.0, TICK - (time.monotonic() - started))
            if page.output is None:
                yield ": still here\n\n"
                await anyio.sleep(left)
                continue
            events, after = await pages.lines(self._ask, page.output, after, left)
            if events:
                html = join(log_line(each) for each in events[-pages.LINES :])
                yield _event("lines", {"html": html}, after)
                # At most one update a second, however much is printed.
                await anyio.sleep(max(0.0, TICK - (time.monotonic() - started)))
            else:
                yield ": still here\n\n"

    # --- files ---------------------------------------------------------------------------------------

    async def _export(self, request: Request) -> Response:
        """This run as one file that needs nothing else: all pages below each other."""
        parts = []
        for path in EXPORTED:
            page = await self._make(path, {})
            parts += [f"<h1>{page.title}</h1>", *(pages.section(part) for part in page.parts)]
        events, _ = await pages.lines(self._ask, {}, 0, 0.0)
        parts += ["<h1>Output</h1>", pages.section(pages.Part("", "", pages.output(events, True)))]
        style = f"<style>{_read('style.css').decode()}</style>"
        text = pages.frame("Saved run", style, f'<main class="saved">{"".join(parts)}</main>')
        name = time.strftime("minimodal-%Y%m%d-%H%M%S.html")
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        return HTMLResponse(text, headers=headers)

    async def _asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            return HTMLResponse(pages.missing("No such file."), 404)
        return Response(_read(name), media_type=ASSETS[name], headers={"cache-control": "no-cache"})


def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _event(kind: str, data: dict[str, Any], number: int | None = None) -> str:
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"
