"""Files of volumes over HTTP: a directory as JSON, a file as a stream that is never held whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from .problems import problem_response

if TYPE_CHECKING:
    from .seam import Ask

NAMES = ("path", "kind", "modified", "size")


def routes(base: str, ask: Ask) -> list[Route]:
    """`BASE/volumes/NAME/files` lists (`?path=`), `…/files/PATH` downloads."""

    async def listing(request: Request) -> Response:
        try:
            volume = await _volume(ask, request)
            path = request.query_params.get("path", "/")
            deep = "recursive" in request.query_params
            reply = await ask("volume.listdir", id=volume, path=path, recursive=deep)
        except Exception as error:
            return problem_response(error)
        rows = json.loads(bytes(reply.payload.data))
        return JSONResponse({"files": [dict(zip(NAMES, row, strict=True)) for row in rows]})

    async def download(request: Request) -> Response:
        path = request.path_params["path"]
        try:
            volume = await _volume(ask, request)
            found = (await ask("volume.stat", id=volume, path=path)).fields
        except Exception as error:
            return problem_response(error)
        name = quote(path.rpartition("/")[2])
        headers = {
            "content-length": str(found["size"]),
            "etag": f'"{found["digest"]}"',
            # Whatever it is, a browser saves it: a page in a volume is no page of ours.
            "content-disposition": f"attachment; filename*=UTF-8''{name}",
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers={"etag": headers["etag"]})
        chunks = _chunks(ask, volume, path, found)
        return StreamingResponse(chunks, headers=headers, media_type="application/octet-stream")

    return [
        Route(f"{base}/volumes/{{name}}/files", listing, methods=["GET"]),
        Route(f"{base}/volumes/{{name}}/files/{{path:path}}", download, methods=["GET"]),
    ]


async def _volume(ask: Ask, request: Request) -> str:
    return str((await ask("volume.open", name=request.path_params["name"])).fields["id"])


async def _chunks(ask: Ask, volume: str, path: str, found: Any) -> AsyncIterator[bytes]:
    """One version of the file: a commit meanwhile does not mix into it."""
    for index in range(found["chunks"]):
        reply = await ask("volume.read", id=volume, path=path, digest=found["digest"], index=index)
        yield bytes(reply.payload.data)
