"""The same FastAPI, Starlette and Flask apps in containers and under plain servers: same answers."""

from __future__ import annotations

import httpx
import pytest
from websockets.sync.client import connect

from tests.gateway.conftest import needs_frameworks

pytestmark = [pytest.mark.timeout(180), needs_frameworks]

FILE = {"file": ("a.bin", b"\x00\xff" * 50_000, "application/octet-stream")}

REQUESTS = [
    ("fast", "GET", "/items/3?q=a", {"headers": {"X-User": "ada"}}),
    ("fast", "GET", "/items/x", {}),
    ("fast", "GET", "/items/1", {"headers": {"X-User": "mallory"}}),
    ("fast", "POST", "/items", {"json": {"name": "tea", "price": 2.5}}),
    ("fast", "POST", "/items", {"json": {"price": "x"}}),
    ("fast", "POST", "/items", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("fast", "POST", "/upload", {"files": FILE}),
    ("fast", "GET", "/stream", {}),
    ("fast", "GET", "/later", {}),
    ("fast", "GET", "/done", {}),
    ("fast", "GET", "/redirect", {}),
    ("fast", "GET", "/text", {}),
    ("fast", "HEAD", "/text", {}),
    ("fast", "GET", "/error", {}),
    ("fast", "OPTIONS", "/text", {}),
    ("fast", "GET", "/no-such", {}),
    ("fast", "GET", "/openapi.json", {}),
    ("fast", "GET", "/docs", {}),
    ("star", "POST", "/echo", {"content": b"abc", "headers": {"content-type": "text/x-test"}}),
    ("star", "PUT", "/echo", {"content": b"z" * 1_000_000}),
    ("star", "GET", "/query?a=1&a=2&b=%C3%BC", {}),
    ("star", "GET", "/under/query?x", {}),
    ("star", "GET", "/under%2Fquery", {}),
    ("star", "GET", "/big", {"headers": {"Accept-Encoding": "gzip"}}),
    ("star", "GET", "/big", {"headers": {"Accept-Encoding": "identity"}}),
    ("star", "DELETE", "/echo", {}),
    ("star", "GET", "/nothing", {}),
    ("star", "GET", "/stream", {}),
    *(
        ("served", *request)  # Starlette under uvicorn inside the container, behind @web_server
        for request in [
            ("POST", "/echo", {"content": b"abc", "headers": {"content-type": "text/x-test"}}),
            ("PUT", "/echo", {"content": b"z" * 1_000_000}),
            ("GET", "/query?a=1&a=2&b=%C3%BC", {}),
            ("GET", "/under/query?x", {}),
            ("GET", "/under%2Fquery", {}),
            ("GET", "/big", {"headers": {"Accept-Encoding": "gzip"}}),
            ("HEAD", "/big", {"headers": {"Accept-Encoding": "identity"}}),
            ("DELETE", "/echo", {}),
            ("OPTIONS", "/echo", {}),
            ("GET", "/nothing", {}),
            ("GET", "/stream", {}),
        ]
    ),
    ("flask", "GET", "/hello/w%C3%B6rld?q=%C3%BC", {}),
    ("flask", "POST", "/form", {"data": {"a": ["1", "2"], "b": "ü"}}),
    ("flask", "POST", "/upload", {"files": FILE}),
    ("flask", "GET", "/stream", {}),
    ("flask", "GET", "/redirect", {}),
    ("flask", "GET", "/no-such", {}),
    ("flask", "HEAD", "/hello/you", {}),
    ("flask", "OPTIONS", "/form", {}),
]

# Of the connection, or of the clock; what an app says of itself must be the same.
NOT_COMPARED = {"date", "server", "connection", "transfer-encoding"}


@pytest.mark.parametrize(("app", "method", "path", "options"), REQUESTS)
def test_the_same_answer(
    shop_port: int,
    plain: dict[str, int],
    app: str,
    method: str,
    path: str,
    options: dict[str, object],
) -> None:
    host = f"{app}.localhost:{shop_port}"  # an app may put it into its answer
    answers = []
    for port in (plain["star" if app == "served" else app], shop_port):
        with httpx.Client(timeout=170) as client:  # the first waits for a start
            request = client.build_request(method, f"http://127.0.0.1:{port}{path}", **options)  # type: ignore[arg-type]  # of several kinds
            request.headers["Host"] = host
            answers.append(client.send(request))
    expected, found = answers
    assert found.status_code == expected.status_code
    assert headers(found) == headers(expected)
    assert found.content == expected.content
    assert found.status_code < 500


def headers(answer: httpx.Response) -> list[tuple[str, str]]:
    items = [(k, v) for k, v in answer.headers.multi_items() if k not in NOT_COMPARED]
    # Frameworks keep the allowed methods in sets, whose order differs between processes.
    return sorted((k, ", ".join(sorted(v.split(", "))) if k == "allow" else v) for k, v in items)


def test_the_same_websocket(shop_port: int, plain: dict[str, int]) -> None:
    said = []
    for url in (f"ws://127.0.0.1:{plain['fast']}/ws", f"ws://127.0.0.1:{shop_port}/fast/ws"):
        with connect(url) as socket:
            for word in ("one", "zwölf", "x" * 100_000):
                socket.send(word)
                said.append(socket.recv())
    assert said[:3] == said[3:]


def test_a_fastapi_endpoint(shop_port: int) -> None:
    with httpx.Client(base_url=f"http://localhost:{shop_port}", timeout=60) as client:
        assert client.post("/point?x=1&y=4").json() == {"sum": 5}
        answer = client.post("/point?x=1", headers={"Origin": "http://elsewhere.example"})
        assert answer.json() == {"sum": 3}
        assert answer.headers["access-control-allow-origin"] in ("*", "http://elsewhere.example")
        assert client.post("/point?x=a").status_code == 422
        assert client.get("/point/docs").status_code == 200
        assert client.get("/point").status_code == 405


def test_a_fastapi_endpoint_of_a_class(shop_port: int) -> None:
    with httpx.Client(base_url=f"http://localhost:{shop_port}", timeout=60) as client:
        assert client.get("/till?amount=3").json() == {"takings": 6}
        assert client.get("/till?amount=3&factor=10").json() == {"takings": 30}
        assert client.get("/till?amount=1").json() == {"takings": 8}
        assert client.get("/till").status_code == 422, "FastAPI's own words"
        assert "factor" in client.get("/till?amount=1&factor=x").text


def test_a_fastapi_endpoint_without_fastapi_says_what_to_do(shop_port: int) -> None:
    answer = httpx.get(f"http://localhost:{shop_port}/without", timeout=60)
    assert answer.status_code == 500
    assert "pip_install" in answer.text
