"""The app that the gateway's tests serve. Plain ASGI, so that any image can run it."""

from __future__ import annotations

import asyncio
import json
import sys
import time

import minimodal
from minimodal import WebRequest, WebResponse

app = minimodal.App("web")

log: list[str] = []


async def body_of(receive) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ConnectionError
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def plain(send, body: bytes, status: int = 200, headers=()) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", b"text/plain"), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


class Everything:
    """One path for each thing that can go well or wrong."""

    def __init__(self) -> None:
        self.started = False
        self.cancelled: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            assert (await receive())["type"] == "lifespan.startup"
            self.started = True
            scope["state"]["word"] = "from the lifespan"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            print("the lifespan ended", file=sys.stderr)
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await self.websocket(scope, receive, send)
        else:
            path = scope["path"].removeprefix(scope["root_path"])
            name = path.strip("/").replace("/", "_") or "index"
            await getattr(self, name, self.missing)(scope, receive, send)

    async def missing(self, scope, receive, send) -> None:
        await plain(send, b"no such page", 404)

    async def index(self, scope, receive, send) -> None:
        await plain(send, b"hello")

    async def scope(self, scope, receive, send) -> None:
        shown = {k: v for k, v in scope.items() if isinstance(v, (str, int, list, tuple))}
        shown["headers"] = [[k.decode(), v.decode()] for k, v in scope["headers"]]
        shown["raw_path"] = scope["raw_path"].decode()
        shown["query_string"] = scope["query_string"].decode()
        shown["state"] = scope["state"]
        await plain(send, json.dumps(shown).encode())

    async def echo(self, scope, receive, send) -> None:
        await plain(send, await body_of(receive))

    async def count(self, scope, receive, send) -> None:
        total = 0
        while True:
            message = await receive()
            total += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await plain(send, str(total).encode())

    async def duplex(self, scope, receive, send) -> None:
        """Answers each part of the body when it comes."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message["body"], "more_body": more})

    async def stream(self, scope, receive, send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        try:
            for n in range(1000):
                await send(
                    {
                        "type": "http.response.body",
                        "body": b"data: %d\n\n" % n,
                        "more_body": True,
                    }
                )
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled.append("stream")
            raise

    async def cancellations(self, scope, receive, send) -> None:
        await plain(send, json.dumps(self.cancelled).encode())

    async def flood(self, scope, receive, send) -> None:
        size = int(scope["query_string"].decode())
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-length", str(size).encode())],
            }
        )
        block = b"x" * 65536
        while size > 0:
            part = block[:size]
            size -= len(part)
            await send({"type": "http.response.body", "body": part, "more_body": size > 0})

    async def large(self, scope, receive, send) -> None:
        await plain(send, b"y" * int(scope["query_string"].decode()))

    async def raises(self, scope, receive, send) -> None:
        raise ValueError("a secret of the user's")

    async def raises_late(self, scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.sleep(0.05)
        raise ValueError("a secret of the user's")

    async def silent(self, scope, receive, send) -> None:
        return

    async def hangs(self, scope, receive, send) -> None:
        self.cancelled.append("hangs began")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled.append("hangs")
            raise

    async def waits(self, scope, receive, send) -> None:
        """Sees the client leave by itself."""
        await body_of(receive)
        self.cancelled.append("waits began")
        message = await receive()
        self.cancelled.append("saw " + message["type"])

    async def short(self, scope, receive, send) -> None:
        head = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"less"})

    async def short_stream(self, scope, receive, send) -> None:
        head = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"less", "more_body": True})
        await send({"type": "http.response.body", "body": b"than that"})

    async def header(self, scope, receive, send) -> None:
        name, value = json.loads(await body_of(receive))
        await plain(send, b"", headers=[(name.encode(), value.encode())])

    async def long(self, scope, receive, send) -> None:
        head = [(b"content-length", b"3")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b"more than that"})

    async def hops(self, scope, receive, send) -> None:
        head = [
            (b"connection", b"close, x-secret"),
            (b"keep-alive", b"timeout=1"),
            (b"x-secret", b"1"),
            (b"x-shown", b"1"),
        ]
        await plain(send, b"", headers=head)

    async def background(self, scope, receive, send) -> None:
        await plain(send, b"answered")
        await asyncio.sleep(0.1)
        self.cancelled.append("after the answer")

    async def websocket(self, scope, receive, send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"].endswith("/denied"):
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["path"].endswith("/refused"):
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"a teapot"})
            return
        protocols = scope["subprotocols"]
        await send({"type": "websocket.accept", "subprotocol": protocols[0] if protocols else None})
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                self.cancelled.append(f"websocket {message['code']}")
                return
            if message.get("text") == "bye":
                await send({"type": "websocket.close", "code": 3001})
                return
            if message.get("text") == "raise":
                raise ValueError("in a websocket")
            if message.get("text") is not None:
                await send({"type": "websocket.send", "text": "echo " + message["text"]})
            else:
                await send({"type": "websocket.send", "bytes": b"echo " + message["bytes"]})


@app.function(timeout=20)
@minimodal.asgi_app(label="everything")
@minimodal.concurrent(max_inputs=20)
def everything():
    return Everything()


@app.function(timeout=1, startup_timeout=30)
@minimodal.asgi_app()
def impatient():
    return Everything()


@app.function()
@minimodal.wsgi_app(label="wsgi")
@minimodal.concurrent(max_inputs=4)
def old():
    def application(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/raises":
            raise ValueError("in wsgi")
        if path == "/stream":
            start_response("200 OK", [("Content-Type", "text/plain")])
            return (b"part %d\n" % n for n in range(3))
        body = environ["wsgi.input"].read()
        start_response("201 Created", [("Content-Type", "text/plain"), ("X-Path", path)])
        return [environ["REQUEST_METHOD"].encode() + b" " + body]

    return application


@app.web_endpoint("/api/users/{user_id}")
def user(user_id: int, verbose: bool = False):
    return {"user_id": user_id, "verbose": verbose}


@app.function()
@app.web_endpoint(path="/api/users", method="POST")
def make_user(name: str, age: int = 0):
    return {"name": name, "age": age}, 201


@app.web_endpoint("/api/request", method="PUT")
@app.function()
async def whole(request: WebRequest):
    return WebResponse(
        {"method": request.method, "body": request.text, "query": dict(request.query)},
        headers={"X-Made-By": "minimodal"},
    )


@app.cls()
@minimodal.concurrent(max_inputs=5)
class Counter:
    @minimodal.enter()
    def begin(self):
        self.count = 100

    @minimodal.asgi_app(label="counter")
    def web(self):
        async def answer(scope, receive, send):
            if scope["type"] == "lifespan":
                raise NotImplementedError
            self.count += 1
            await plain(send, str(self.count).encode())

        return answer

    @minimodal.method()
    def current(self) -> int:
        return self.count


@app.function()
@minimodal.asgi_app(label="locked", requires_proxy_auth=True)
def locked():
    return Everything()


@app.function()
@minimodal.asgi_app(label="broken")
def broken():
    raise OSError("no disk for this app")


@app.cls(timeout=30, max_containers=1)
class Shelf:
    kind: str = minimodal.parameter()
    size: int = minimodal.parameter(default=2)
    open: bool = minimodal.parameter(default=True)

    @minimodal.enter()
    def begin(self):
        self.served = 0

    @minimodal.asgi_app(label="shelf")
    def web(self):
        async def answer(scope, receive, send):
            if scope["type"] == "lifespan":
                raise NotImplementedError
            self.served += 1
            shown = [self.kind, self.size, self.open, self.served, scope["query_string"].decode()]
            await plain(send, json.dumps(shown).encode())

        return answer

    @minimodal.method()
    def count(self) -> int:
        return self.served


@app.function()
@minimodal.web_server(8965, label="server")
@minimodal.concurrent(max_inputs=10)
def server():
    import subprocess

    subprocess.Popen([sys.executable, "-m", "http.server", "8965", "--bind", "127.0.0.1"])


@app.function()
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@app.function()
def fails(why: str) -> None:
    raise ValueError(why)


@app.function()
def talk(text: str) -> str:
    print(text)
    return text.upper()


@app.function()
def double(x: int) -> int:
    time.sleep(0)
    return 2 * x
