"""Functions behind URLs: path, query and JSON parameters by signature, or any ASGI application.

minimodal run examples/web_endpoints_example.py
"""

import json
import urllib.request

import minimodal

app = minimodal.App("web-endpoints-example")


@app.web_endpoint(path="/users/{user_id}", method="GET")
def get_user(user_id: int, verbose: bool = False) -> dict[str, object]:
    user: dict[str, object] = {"id": user_id, "name": f"user {user_id}"}
    return {**user, "visits": 42} if verbose else user


@app.web_endpoint(path="/orders", method="POST")
def create_order(item: str, count: int = 1):
    if count < 1:
        return {"error": "count must be at least 1"}, 422
    return {"item": item, "count": count}, 201


@app.function()
@minimodal.asgi_app()
def hello():
    """The smallest ASGI application; FastAPI, Starlette and Flask go here as well."""

    async def application(scope, receive, send):
        if scope["type"] != "http":
            return
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": f"hello {scope['path']}".encode()})

    return application


def fetch(url: str, body: object = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return f"{response.status} {response.read().decode()}"


@app.local_entrypoint()
def main() -> None:
    user_url = str(get_user.get_web_url())  # …/users/{user_id}
    print("get_user:", fetch(user_url.format(user_id=7) + "?verbose=true"))
    print("create_order:", fetch(str(create_order.get_web_url()), {"item": "tea"}))
    print("asgi:", fetch(f"{hello.get_web_url()}/world"))
