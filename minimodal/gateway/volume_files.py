"""Files of volumes over HTTP: a directory as JSON, a file as a stream that is never held whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from minimodal.types import Payload

from .limits import Limits
from .problems import body_of, problem_response

if TYPE_CHECKING:
    from .seam import Ask

PIECE_BYTES = 1 << 20
NAMES = ("path", "kind", "modified", "size")


def routes(base: str, ask: Ask, limits: Limits) -> list[Route]:
    """`BASE/volumes/NAME/files` lists (`?path=`), `…/files/PATH` is one: GET, PUT, DELETE."""

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

    async def upload(request: Request) -> Response:
        """The file is there whole, in one commit, or not at all. `If-None-Match: *`: only a new one."""
        path, size, began = request.path_params["path"], 0, ""
        try:
            volume = await _volume(ask, request)
            began = (await ask("volume.upload_begin", id=volume)).fields["upload"]
            async for part in _pieces(body_of(request, limits.body_bytes, limits.body_idle)):
                await ask("volume.upload_piece", Payload(part), upload=began, number=0, offset=size)
                size += len(part)
            if not size:
                await ask("volume.upload_piece", Payload(b""), upload=began, number=0, offset=0)
            described = Payload(json.dumps([{"path": path, "number": 0}]).encode())
            force = request.headers.get("if-none-match") != "*"
            await ask("volume.upload_end", described, upload=began, force=force)
        except Exception as error:
            if began:
                await ask("volume.upload_abort", upload=began)
            return problem_response(error)
        return JSONResponse({"path": path, "size": size}, 201)

    async def remove(request: Request) -> Response:
        try:
            volume = await _volume(ask, request)
            deep = "recursive" in request.query_params
            path = request.path_params["path"]
            await ask("volume.remove_file", id=volume, path=path, recursive=deep)
        except Exception as error:
            return problem_response(error)
        return Response(status_code=204)

    file = f"{base}/volumes/{{name}}/files/{{path:path}}"
    return [
        Route(f"{base}/volumes/{{name}}/files", listing, methods=["GET"]),
        Route(file, download, methods=["GET"]),
        Route(file, upload, methods=["PUT"]),
        Route(file, remove, methods=["DELETE"]),
    ]


async def _pieces(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Small parts together: each piece is a file that is opened and written."""
    waiting: list[bytes] = []
    async for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= PIECE_BYTES:
            yield b"".join(waiting)
            waiting = []
    if waiting:
        yield b"".join(waiting)


async def _volume(ask: Ask, request: Request) -> str:
    return str((await ask("volume.open", name=request.path_params["name"])).fields["id"])


async def _chunks(ask: Ask, volume: str, path: str, found: Any) -> AsyncIterator[bytes]:
    """One version of the file: a commit meanwhile does not mix into it."""
    for index in range(found["chunks"]):
        reply = await ask("volume.read", id=volume, path=path, digest=found["digest"], index=index)
        yield bytes(reply.payload.data)
