"""F82: malformed HTTP, and what is well formed and has led other servers astray."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.impatient import raw
from tests.leftovers import nothing_left


@pytest.fixture(scope="module")
def leaves_nothing(home: Path) -> Iterator[None]:
    with nothing_left(docker=False):
        yield


HOST = b"Host: localhost\r\n"
CHUNKED = b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "statuses"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 100_000 + b"\r\n\r\n", {431}),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {431, 414}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length: x\r\n\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\r\n" + HOST + b"A: b\0c\r\n\r\n", {400}),
        (b"GET /everything/%00 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\r\n" + HOST + HOST + b"\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\r\n\r\n", {400}),
        (b"nonsense\r\n\r\n", {400}),
        (b"GET everything HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1000000000\r\n\r\n", {413}),
        (b"GET /everything/\r\n\r\n", {400}),
        (b"GET /everything/ HTTP/2.0\r\n" + HOST + b"\r\n", {400}),
        (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\n" + HOST + b"\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\r\n" + HOST + b"A: b\n\r\n", {400}),
        (b"GET /everything/ HTTP/1.1\r\n" + HOST + b"A: b\r\n c\r\n\r\n", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length : 1\r\n\r\na", {400}),
        (b"POST /everything/echo HTTP/1.1\r\n" + HOST + b"Content-Length: 1, 1\r\n\r\na", {400}),
        (CHUNKED.replace(b": c", b": gzip, c") + b"0\r\n\r\n", {501}),
        (CHUNKED.replace(b": c", b": x") + b"0\r\n\r\n", {400, 501}),
        (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", {400}),
        (CHUNKED + b"1\na\r\n0\r\n\r\n", {400}),
        (CHUNKED + b"0x1\r\na\r\n0\r\n\r\n", {400}),
        (CHUNKED + b"1 \r\na\r\n0\r\n\r\n", {400}),
        (CHUNKED + b"fffffffffffffffff\r\na\r\n0\r\n\r\n", {400}),
        (CHUNKED + b"1\r\nab0\r\n\r\n", {400}),
        (CHUNKED + b"1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n", {400}),
        (CHUNKED + b"1\r\na\r\n0\r\nX: " + b"y" * 3_000_000, {400}),
        (CHUNKED + b"1;" + b"y" * 3_000_000, {400}),
    ],
)  # fmt: skip
def test_f82_malformed_requests(
    everything: httpx.Client, port: int, request_bytes: bytes, statuses: set[int]
) -> None:
    answer = raw(port, request_bytes, 3.0)
    assert int(answer.split(b" ", 2)[1]) in statuses, answer[:200]
    assert everything.get("/").text == "hello"


def test_f82_an_absolute_target_means_its_own_host(port: int) -> None:
    request = b"GET http://localhost/everything/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert raw(port, request).endswith(b"0\r\n\r\n")
    assert raw(
        port, b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    ).startswith(b"HTTP/1.1 403")


GET = b"GET /everything/%b HTTP/1.1\r\n" + HOST + b"\r\n"


def test_f82_a_trailer_is_no_header(port: int) -> None:
    trailed = CHUNKED.replace(b"/echo", b"/scope") + b"1\r\na\r\n0\r\nX-Forged: y\r\n\r\n"
    answer = raw(port, trailed + GET.replace(b"Host", b"Connection: close\r\nHost") % b"")
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"forged" not in answer.lower()


def test_f82_requests_in_one_write_are_answered_in_order(port: int) -> None:
    answer = raw(port, GET % b"large?3" + GET % b"" + GET % b"large?2" + b"nonsense\r\n\r\n")
    assert re.findall(rb"\r\n\d\r\n(\w+)\r\n0\r\n\r\n", answer) == [b"yyy", b"hello", b"yy"]
    assert answer.count(b"HTTP/1.1 ") == 3, "the connection ends at the one that is none"


def test_f82_a_wish_for_another_protocol_is_not_heeded(port: int) -> None:
    """Java's HTTP client asks for HTTP/2 so with each request, also with one that has a body."""
    wish = b"Connection: close, Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    request = b"POST /everything/echo HTTP/1.1\r\n" + wish + HOST + b"Content-Length: 3\r\n\r\nabc"
    assert raw(port, request).endswith(b"3\r\nabc\r\n0\r\n\r\n")


def test_f82_a_websocket_behind_a_request_that_runs(port: int) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    answer = raw(port, GET % b"" + GET.replace(b"Host", upgrade + key + b"Host") % b"socket")
    assert answer.endswith(b"hello\r\n0\r\n\r\n"), "answered alone, and the connection ends"


def test_f82_an_old_client_gets_no_chunks(port: int) -> None:
    request = b"GET /everything/duplex HTTP/1.0\r\n\r\n"
    assert raw(port, request).startswith(b"HTTP/1.1 403"), "it must say a host of ours"
    answer = raw(port, request.replace(b"1.0\r\n", b"1.0\r\n" + HOST))
    assert b"chunked" not in answer
    assert answer.startswith(b"HTTP/1.1 200")


def test_f82_a_chunked_body_over_the_limit(everything: httpx.Client) -> None:
    parts = (b"x" * 65536 for _ in range(100))
    with contextlib.suppress(httpx.WriteError, httpx.RemoteProtocolError):
        assert everything.post("/count", content=parts).status_code == 413
    assert everything.get("/").text == "hello"
