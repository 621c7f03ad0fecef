"""Real FastAPI, Starlette and Flask apps with many features, for the comparison with plain servers."""

# No postponed annotations: FastAPI must see those of functions inside functions.

import asyncio
import os
import socket

import minimodal

app = minimodal.App("shop")
image = minimodal.Image.debian_slim().pip_install(
    "fastapi", "python-multipart", "flask", "uvicorn", "websockets"
)


def make_fastapi():
    from fastapi import (
        BackgroundTasks,
        Depends,
        FastAPI,
        Header,
        HTTPException,
        UploadFile,
        WebSocket,
    )
    from fastapi.responses import PlainTextResponse, RedirectResponse, StreamingResponse
    from pydantic import BaseModel

    api = FastAPI()
    done: list[str] = []

    class Item(BaseModel):
        name: str
        price: float = 1.0

    def user(x_user: str = Header("nobody")) -> str:
        if x_user == "mallory":
            raise HTTPException(403, "not you")
        return x_user

    @api.get("/items/{item_id}")
    def read(item_id: int, q: str | None = None, who: str = Depends(user)) -> dict:
        return {"item_id": item_id, "q": q, "who": who}

    @api.post("/items", status_code=201)
    async def make(item: Item) -> Item:
        return item

    @api.post("/upload")
    async def upload(file: UploadFile) -> dict:
        return {"name": file.filename, "size": len(await file.read())}

    @api.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts():
            for n in range(5):
                yield f"part {n}\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(parts(), media_type="text/plain")

    @api.get("/later")
    async def later(tasks: BackgroundTasks) -> dict:
        tasks.add_task(done.append, "done")
        return {"started": True}

    @api.get("/done")
    async def what() -> list[str]:
        return done

    @api.get("/redirect")
    async def redirect() -> RedirectResponse:
        return RedirectResponse("/items/1", headers={"x-a": "1"})

    @api.get("/text")
    async def text() -> PlainTextResponse:
        answer = PlainTextResponse("grüße")
        answer.set_cookie("a", "b")
        answer.set_cookie("c", "d")
        return answer

    @api.get("/error")
    async def error() -> None:
        raise HTTPException(418, "a teapot", {"x-reason": "tea"})

    @api.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for message in websocket.iter_text():
            await websocket.send_text(message.upper())

    return api


def make_starlette():
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.websockets import WebSocket

    async def echo(request: Request) -> Response:
        body = await request.body()
        kind = request.headers.get("content-type", "application/octet-stream")
        return Response(body, media_type=kind)

    async def nothing(request: Request) -> Response:
        return Response(status_code=204)

    async def stream(request: Request) -> Response:
        async def parts():
            for n in range(5):
                yield f"part {n}\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(parts(), media_type="text/plain")

    async def query(request: Request) -> Response:
        return JSONResponse({"items": request.query_params.multi_items(), "path": request.url.path})

    async def big(request: Request) -> Response:
        return Response("z" * 100_000, media_type="text/plain")

    told: list[list[object]] = []  # how WebSockets ended, as the app saw it

    async def how(request: Request) -> Response:
        return JSONResponse(told)

    async def talk(socket: WebSocket) -> None:
        """Says each message back, and does what its path or a word asks for."""
        wishes = socket.query_params
        if "refuse" in wishes:
            await socket.close(1008, "not you")
            return
        if "deny" in wishes:
            denial = Response(b"a teapot", 418, {"x-reason": "tea"}, "text/plain")
            await socket.send_denial_response(denial)
            return
        if "raise" in wishes:
            raise ValueError("before the handshake")
        if "leave" in wishes:
            return
        known = [each for each in socket.scope["subprotocols"] if each.startswith("v")]
        await socket.accept(known[-1] if known else None, [(b"x-made-by", b"shop"), (b"x-b", b"2")])
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                told.append([message["code"], message.get("reason")])
                return
            text = message.get("text")
            if text is None:
                await socket.send_bytes(message["bytes"])
            elif text.startswith("close "):
                await socket.close(int(text.split()[1]), text.partition(" because ")[2])
            elif text == "raise":
                raise ValueError("after the handshake")
            elif text == "leave":
                return
            elif text == "scope":
                await socket.send_json(shown(socket.scope))
            elif text.startswith("fill "):
                await socket.send_bytes(b"z" * int(text.split()[1]))
            else:
                await socket.send_text(text)

    def shown(scope: dict) -> dict:
        plain = {name: scope[name] for name in ("type", "http_version", "scheme", "path")}
        plain |= {name: scope[name].decode() for name in ("raw_path", "query_string")}
        plain["subprotocols"] = list(scope["subprotocols"])
        plain["headers"] = [[k.decode(), v.decode("latin-1")] for k, v in scope["headers"]]
        return plain

    routes = [
        WebSocketRoute("/talk", talk),
        Mount("/under/way", routes=[WebSocketRoute("/talk", talk)]),
        Route("/how", how),
        Route("/echo", echo, methods=["POST", "PUT"]),
        Route("/query", query),
        Route("/nothing", nothing),
        Route("/stream", stream),
        Route("/big", big),
        Mount("/under", routes=[Route("/query", query)]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(GZipMiddleware)])


def make_flask():
    from flask import Flask, Response, jsonify, redirect, request, stream_with_context

    web = Flask("shop")

    @web.get("/hello/<name>")
    def hello(name: str):
        return f"Hello, {name}! {request.args.get('q', '')}"

    @web.post("/form")
    def form():
        return jsonify(request.form.to_dict(flat=False))

    @web.post("/upload")
    def upload():
        file = request.files["file"]
        return {"name": file.filename, "size": len(file.read())}

    @web.get("/stream")
    def stream():
        return Response(stream_with_context(f"{n}\n" for n in range(5)), mimetype="text/plain")

    @web.get("/redirect")
    def away():
        return redirect("/hello/you")

    @web.errorhandler(404)
    def missing(error):
        return jsonify(error="missing"), 404

    return web


@app.function(image=image)
@minimodal.concurrent(max_inputs=10)
@minimodal.asgi_app(label="fast")
def fast():
    return make_fastapi()


@app.function(image=image)
@minimodal.asgi_app(label="star")
@minimodal.concurrent(max_inputs=10)
def star():
    return make_starlette()


@app.function(image=image)
@minimodal.concurrent(max_inputs=10)
@minimodal.wsgi_app(label="flask")
def flask():
    return make_flask()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# Test files run side by side, and on most backends their containers share the network.
PORT = int(os.environ.get("SHOP_PORT") or free_port())
the_port = minimodal.Secret.from_dict({"SHOP_PORT": str(PORT)})


@app.function(image=image, secrets=[the_port])
@minimodal.concurrent(max_inputs=10)
@minimodal.web_server(PORT, label="served")
def served():
    import threading

    import uvicorn

    options = {"host": "127.0.0.1", "port": PORT, "log_level": "error", "server_header": False}
    threading.Thread(
        target=uvicorn.run, args=(make_starlette(),), kwargs=options, daemon=True
    ).start()


@app.function(image=image)
@minimodal.fastapi_endpoint(method="POST", label="point", docs=True)
def point(x: int, y: int = 2) -> dict:
    return {"sum": x + y}


@app.cls(image=image)
class Till:
    factor: int = minimodal.parameter(default=2)

    @minimodal.enter()
    def open(self) -> None:
        self.takings = 0

    @minimodal.fastapi_endpoint(label="till")
    def take(self, amount: int) -> dict:
        self.takings += amount * self.factor
        return {"takings": self.takings}


@app.function()
@minimodal.fastapi_endpoint(label="without")
def without() -> str:
    return "never"
