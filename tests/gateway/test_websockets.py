"""WebSockets of a Starlette app, in a container and behind @web_server, as under plain uvicorn."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.gateway.conftest import needs_frameworks

pytestmark = [pytest.mark.timeout(180), needs_frameworks]

WAYS = ("star", "served")
# Of the connection, or of the way here; what an app says and is told must be the same.
NOT_COMPARED = {"date", "server", "connection", "upgrade", "sec-websocket-accept"}
NOT_THE_SAME = ("sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions")

Talk = Callable[[ClientConnection], Any]


@contextmanager
def talking(port: int, app: str, path: str, **options: Any) -> Any:
    """A WebSocket to an app, under the same Host in both places."""
    sock = socket.create_connection(("127.0.0.1", port))
    url = f"ws://{app}.localhost{path}"
    with sock, connect(url, sock=sock, max_size=None, open_timeout=60, **options) as found:
        yield found


@pytest.fixture(params=WAYS)
def both(
    request: pytest.FixtureRequest, shop_port: int, plain: dict[str, int]
) -> Callable[..., list[Any]]:
    """What `talk` says of the plain server and of the gateway."""

    def compare(talk: Talk, path: str = "/talk", **options: Any) -> list[Any]:
        said = []
        for port in (plain["star"], shop_port):
            with talking(port, request.param, path, **options) as found:
                said.append(talk(found))
        return said

    return compare


def same(said: list[Any]) -> Any:
    expected, found = said
    assert found == expected
    return found


def ended(found: ClientConnection) -> tuple[int | None, str]:
    """How the other side closed."""
    with pytest.raises(ConnectionClosed):
        found.recv(timeout=20)
    return found.close_code, found.close_reason or ""


@pytest.mark.parametrize(
    "message",
    ["one", "zwölf \0 \U0001f375", "", b"", b"\x00\xff", "x" * 1_000_000, b"y" * 5_000_000],
    ids=lambda message: f"{type(message).__name__}-{len(message)}",
)
def test_messages_come_back(both: Callable[..., list[Any]], message: str | bytes) -> None:
    def talk(found: ClientConnection) -> list[str | bytes]:
        found.send(message)
        found.send("after")
        return [found.recv(timeout=20), found.recv(timeout=20)]

    assert same(both(talk)) == [message, "after"]


def test_a_message_in_fragments_is_one(both: Callable[..., list[Any]]) -> None:
    def talk(found: ClientConnection) -> list[str | bytes]:
        found.send(["a", "b" * 70_000, "c"])
        found.send(iter([b"1", b"", b"2"]))
        return [found.recv(timeout=20), found.recv(timeout=20)]

    assert same(both(talk)) == ["a" + "b" * 70_000 + "c", b"12"]


def test_a_large_message_of_the_app(both: Callable[..., list[Any]]) -> None:
    def talk(found: ClientConnection) -> str | bytes:
        found.send("fill 5000000")
        return found.recv(timeout=20)

    assert same(both(talk)) == b"z" * 5_000_000


def test_a_message_over_the_limit(both: Callable[..., list[Any]]) -> None:
    def talk(found: ClientConnection) -> int | None:
        try:
            found.send(b"x" * (17 << 20))
        except ConnectionClosed:
            pass  # it closes before it has read all
        return ended(found)[0]

    assert same(both(talk)) == 1009


def test_a_ping_is_answered(both: Callable[..., list[Any]]) -> None:
    assert same(both(lambda found: found.ping(b"x").wait(20))) is True


@pytest.mark.parametrize("asked", [[], ["v1"], ["v1", "v2"], ["other"], ["other", "v2", "v1"]])
@pytest.mark.parametrize("compression", ["deflate", None])
def test_the_handshake(
    both: Callable[..., list[Any]], asked: list[str], compression: str | None
) -> None:
    def talk(found: ClientConnection) -> Any:
        answer = found.response
        assert answer is not None
        head = [(k.lower(), v) for k, v in answer.headers.raw_items()]
        return found.subprotocol, sorted(each for each in head if each[0] not in NOT_COMPARED)

    wanted = [Subprotocol(each) for each in asked] or None
    subprotocol, headers = same(both(talk, subprotocols=wanted, compression=compression))
    assert subprotocol == next((each for each in asked[::-1] if each.startswith("v")), None)
    assert ("x-made-by", "shop") in headers


def test_what_the_app_is_told(both: Callable[..., list[Any]]) -> None:
    def talk(found: ClientConnection) -> dict[str, Any]:
        found.send("scope")
        scope: dict[str, Any] = json.loads(found.recv(timeout=20))
        scope["headers"] = sorted(
            each
            for each in scope["headers"]
            if each[0] not in NOT_COMPARED
            and not each[0].startswith("x-forwarded-")
            and each[0] not in NOT_THE_SAME
        )
        return scope

    more = [
        ("X-One", "1"),
        ("Cookie", "a=b"),
        ("X-One", "ü"),
        ("Origin", "http://elsewhere.example"),
    ]
    scope = same(
        both(
            talk,
            "/under/way/talk?a=%C3%BC&b",
            subprotocols=[Subprotocol("v1"), Subprotocol("w")],
            additional_headers=more,
        )
    )
    assert scope["subprotocols"] == ["v1", "w"]
    assert scope["scheme"] == "ws"


@pytest.mark.parametrize(
    "word",
    [
        "close 1000",
        "close 1001 because enough",
        "close 3001",
        "close 4999 because grüße",
    ],
)
def test_the_app_ends_it(both: Callable[..., list[Any]], word: str) -> None:
    def talk(found: ClientConnection) -> tuple[int | None, str]:
        found.send(word)
        return ended(found)

    code, reason = same(both(talk))
    assert (str(code), reason) == (word.split()[1], word.partition(" because ")[2])


@pytest.mark.parametrize(("word", "code"), [("raise", 1011), ("leave", 1000)])
def test_an_app_that_ends_without_closing(
    both: Callable[..., list[Any]], request: pytest.FixtureRequest, word: str, code: int
) -> None:
    """Uvicorn cuts the connection, which says nothing; here it is closed with a code."""

    def talk(found: ClientConnection) -> tuple[int | None, str]:
        found.send(word)
        return ended(found)

    (plain_code, _), (found, _) = both(talk)
    assert plain_code == 1006
    served = "served" in request.node.name  # whose server cuts it within the container
    assert found == (1011 if served else code)


@pytest.mark.parametrize(
    "how",
    [(1000, ""), (1001, "going"), (3000, "grüße"), (4001, ""), None, "reset"],
    ids=str,
)
@pytest.mark.parametrize("app", WAYS)
def test_the_client_ends_it(
    shop_port: int, plain: dict[str, int], app: str, how: tuple[int, str] | str | None
) -> None:
    """And the app is told code and reason."""
    told = []
    for port in (plain["star"], shop_port):
        host = {"Host": f"{app}.localhost"}
        url = f"http://127.0.0.1:{port}/how"
        before = len(httpx.get(url, headers=host, timeout=60).json())
        with talking(port, app, "/talk") as found:
            found.send("one")
            assert found.recv(timeout=20) == "one"
            if isinstance(how, tuple):
                found.close(*how)
            else:
                if how == "reset":
                    linger = struct.pack("ii", 1, 0)
                    found.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                found.socket.shutdown(socket.SHUT_RDWR)
                found.socket.close()
        until = time.monotonic() + 20
        while len(now := httpx.get(url, headers=host).json()) == before:
            assert time.monotonic() < until
            time.sleep(0.01)  # what an app notes, it notes without an event of ours
        told.append(now[before:])
    same(told)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/talk?refuse", 403),
        ("/talk?deny", 418),
        ("/talk?raise", 500),
        ("/talk?leave", 500),
        ("/nowhere", 403),
    ],
)
@pytest.mark.parametrize("app", WAYS)
def test_a_refusal(shop_port: int, plain: dict[str, int], app: str, path: str, status: int) -> None:
    answers = []
    for port in (plain["star"], shop_port):
        with pytest.raises(InvalidStatus) as refused, talking(port, app, path):
            pass
        answer = refused.value.response
        own = path == "/talk?deny"  # else the words are the server's
        head = {k.lower(): v for k, v in answer.headers.raw_items()} if own else {}
        answers.append((answer.status_code, answer.body if own else b"", head.get("x-reason")))
    assert same(answers)[0] == status


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET /talk HTTP/1.1\r\nHost: %b\r\n\r\n",
        b"GET /talk HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /talk HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        b"GET /talk HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
        b"POST /talk HTTP/1.1\r\nHost: %b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Content-Length: 0\r\n\r\n",
    ],
    ids=["none", "no key", "version", "bad key", "post"],
)
def test_a_handshake_that_is_none(
    shop_port: int, plain: dict[str, int], request_head: bytes
) -> None:
    statuses = []
    for port in (plain["star"], shop_port):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(20)
            sock.sendall(request_head % b"star.localhost")
            statuses.append(sock.recv(65536).split(b" ", 2)[1])
    same(statuses)
