"""F78 to F86: hostile and unlucky clients of the gateway, and endpoints that misbehave."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from minimodal.config import load_config
from minimodal.errors import StateError
from minimodal.host import Host
from tests.faults.impatient import raw
from tests.leftovers import nothing_left


@pytest.fixture(scope="module")
def leaves_nothing(home: Path) -> Iterator[None]:
    with nothing_left(docker=False):
        yield


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return condition()


def cancellations(everything: httpx.Client) -> list[str]:
    found: list[str] = everything.get("/cancellations").json()
    return found


# --- F78 ------------------------------------------------------------------------------------------


def test_f78_a_taken_port(home: Path, leaves_nothing: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with Host(load_config({"backend": "process", "port": number})) as host:
            url = host.open_gateway()
            assert host.door.port > number
            assert httpx.get(url).status_code == 200
        config = load_config({"backend": "process", "port": number, "strict_port": True})
        with Host(config) as host, pytest.raises(StateError, match=f"port {number}"):
            host.open_gateway()


def test_f78_a_restart_binds_the_same_port_at_once(home: Path, leaves_nothing: None) -> None:
    ports = set()
    number = 0
    for _ in range(3):
        config = load_config({"backend": "process", "port": number, "strict_port": True})
        with Host(config) as host:
            httpx.get(host.open_gateway()).raise_for_status()
            number = host.door.port
            ports.add(number)
    assert len(ports) == 1


# --- F79 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_f79_a_client_that_leaves_mid_stream(
    everything: httpx.Client, port: int, reset: bool
) -> None:
    before = cancellations(everything).count("stream")
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"GET /everything/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"data: 0" in sock.recv(65536) + sock.recv(65536)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    assert wait_until(lambda: cancellations(everything).count("stream") > before, 10.0)


def test_f79_a_client_that_leaves_before_the_answer(everything: httpx.Client, port: int) -> None:
    before = cancellations(everything)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /everything/hangs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for_more(everything, "hangs began", before)
    wait_for_more(everything, "hangs", before)
    metrics = httpx.get(f"http://localhost:{port}/metrics").text
    assert re.search(r'http_requests_total\{.*function="everything",status="499"\} [1-9]', metrics)


def test_f79_an_app_that_asks_sees_its_client_leave(everything: httpx.Client, port: int) -> None:
    before = cancellations(everything)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET /everything/waits HTTP/1.1\r\nHost: localhost\r\n\r\n")
        wait_for_more(everything, "waits began", before)
    wait_for_more(everything, "saw http.disconnect", before)


def wait_for_more(everything: httpx.Client, word: str, before: list[str]) -> None:
    """Until the app has noted it once more; within 2 s on a machine of its own."""
    assert wait_until(lambda: cancellations(everything).count(word) > before.count(word), 10.0)


# --- F80 ------------------------------------------------------------------------------------------


def test_f80_slow_headers(everything: httpx.Client, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(0.2)
        started = time.monotonic()
        answer = b""
        for byte in b"GET /everything/ HTTP/1.1\r\n" + b"X: y\r\n" * 100:
            with contextlib.suppress(TimeoutError):
                answer = sock.recv(65536)
                break
            try:
                sock.sendall(bytes([byte]))
            except ConnectionError:
                break
        assert time.monotonic() - started < 4
        assert answer.startswith(b"HTTP/1.1 408") or answer == b""


def test_f80_a_slow_body_takes_no_container(everything: httpx.Client, port: int) -> None:
    request = b"POST /everything/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nab"
    started = time.monotonic()
    assert raw(port, request).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 4
    large = request.replace(b": 10", b": 1000000")
    assert raw(port, large).startswith(b"HTTP/1.1 408")


def test_f80_a_slow_body_for_the_platform(port: int) -> None:
    head = b"POST /api/v1/calls/fc-1/cancel HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n"
    started = time.monotonic()
    assert raw(port, head + b"Connection: close\r\n\r\na", 3.0).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 4


def test_f80_a_reader_that_stops_is_cut_off(everything: httpx.Client, port: int) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /everything/flood?200000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(2.5)
        sock.settimeout(5)
        size = 0
        with contextlib.suppress(ConnectionError):
            while part := sock.recv(1 << 20):
                size += len(part)
        assert size < 100_000_000
    assert everything.get("/").text == "hello"


def test_f80_others_do_not_notice_slow_clients(everything: httpx.Client, port: int) -> None:
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    try:
        for sock in slow:
            sock.sendall(b"GET /everything/ HT")
        started = time.monotonic()
        for _ in range(20):
            assert everything.get("/").status_code == 200
        assert time.monotonic() - started < 5
    finally:
        for sock in slow:
            sock.close()


# --- F81 ------------------------------------------------------------------------------------------


def test_f81_idle_connections_beyond_the_limit_get_503(everything: httpx.Client, port: int) -> None:
    """10,000 of them, from a process of its own: each end is a descriptor."""
    everything.get("/")
    before = resident()
    code = CROWD.format(port=port, count=10_000)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as crowd:
        assert crowd.stdout is not None
        assert crowd.stdin is not None
        try:
            opened, refused = map(int, crowd.stdout.readline().split())
            assert opened >= 5_000, "fewer where this machine allows fewer descriptors"
            assert refused > opened // 2, "503 at once; the others still wait to be accepted"
            assert resident() - before < opened * 64 * 1024
            assert resident() - before < 64 << 20
            started = time.monotonic()
            assert everything.get("/").status_code == 200  # its connection was there before
            assert time.monotonic() - started < 10
        finally:
            crowd.stdin.close()
    assert wait_until(lambda: httpx.get(str(everything.base_url)).status_code == 200, 5)


CROWD = """
import resource, select, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
count = min({count}, hard - 100)
watch = select.poll()
idle, refused = [], 0

def look(milliseconds):
    global refused
    found = watch.poll(milliseconds)
    for number, _ in found:
        watch.unregister(number)
    refused += len(found)
    return found

for _ in range(count):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(("127.0.0.1", {port}))
    watch.register(sock, select.POLLIN)
    idle.append(sock)
    while len(idle) - refused > 1500 and look(2000):
        pass  # a full backlog would make it wait for seconds
while look(1500):
    pass
print(len(idle), refused, flush=True)
sys.stdin.read()
"""


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- F83 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Host": "127.0.0.1"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/endpoints", "/"])
def test_f83_a_hostile_page(port: int, headers: dict[str, str], status: int, path: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers)
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_f83_a_cross_site_post_and_websocket(port: int) -> None:
    url = f"http://localhost:{port}/api/v1/calls/fc-1/cancel"
    assert httpx.post(url, headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.post(url, headers={"Origin": f"http://localhost:{port}"}).status_code != 403
    upgrade = (
        b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nOrigin: http://evil.example\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw(port, upgrade, 2).startswith(b"HTTP/1.1 403")


# --- F85 ------------------------------------------------------------------------------------------


def test_f85_an_app_that_raises(everything: httpx.Client) -> None:
    answer = everything.get("/raises")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    with pytest.raises(httpx.RemoteProtocolError):
        everything.get("/raises_late")
    assert everything.get("/silent").status_code == 500


def test_f85_an_app_that_never_answers(port: int) -> None:
    with httpx.Client(base_url=f"http://localhost:{port}/web-impatient", timeout=20) as client:
        client.get("/")
        started = time.monotonic()
        assert client.get("/hangs").status_code == 504
        assert time.monotonic() - started < 4
        assert client.get("/").text == "hello"


@pytest.mark.parametrize("path", ["/short", "/long"])
def test_f85_a_wrong_length_is_not_passed_on(everything: httpx.Client, path: str) -> None:
    answer = everything.get(path)
    assert answer.status_code == 502
    assert "no proper response" in answer.text
    assert everything.get("/").text == "hello"


def test_f85_a_wrong_length_of_a_stream_ends_the_connection(everything: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        everything.get("/short_stream")
    assert everything.get("/").text == "hello"


@pytest.mark.parametrize("name", ["bad name", "x\r\ny", "x:y", ""])
def test_f85_headers_that_are_none(everything: httpx.Client, name: str) -> None:
    assert everything.post("/header", json=[name, "1"]).status_code == 502
    assert everything.post("/header", json=["x", f"1{name}\r\nset-cookie: a"]).status_code == 502
    assert everything.post("/header", json=["content-length", "0_0"]).status_code == 502
    assert everything.post("/header", json=["Transfer-Encoding", "gzip"]).text == ""
    answer = everything.post("/header", json=["x-one", "grüße"])
    assert answer.headers["x-one"] == "grüße"


def test_f85_a_large_stream_to_a_slow_reader(everything: httpx.Client) -> None:
    everything.get("/")
    before = resident()
    highest = before
    with everything.stream("GET", "/flood?60000000") as answer:
        size = 0
        for part in answer.iter_raw(1 << 20):
            size += len(part)
            highest = max(highest, resident())
            time.sleep(0.005)
    assert size == 60_000_000
    assert highest - before < 40 << 20


# --- F86 ------------------------------------------------------------------------------------------


def test_f86_twenty_deployments_under_load_lose_no_request(
    home: Path, leaves_nothing: None
) -> None:
    from minimodal import App, asgi_app, concurrent

    made = []
    for version in range(21):
        app = App("swap")

        def web(version: int = version):  # type: ignore[no-untyped-def]
            async def answer(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
                if scope["type"] == "lifespan":
                    raise NotImplementedError
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"version %d" % version})

            return answer

        web.__name__ = web.__qualname__ = "web"
        app.function(serialized=True)(concurrent(max_inputs=10)(asgi_app(label="swap")(web)))
        made.append(app)
    with Host(load_config({"backend": "process", "port": 0})) as host:
        made[0].deploy()
        url = f"{host.door.url}swap/"
        httpx.get(url, timeout=20).raise_for_status()
        answers: list[tuple[int, str]] = []
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(timeout=20) as client:
                while not stop.is_set():
                    answer = client.get(url)
                    answers.append((answer.status_code, answer.text))

        threads = [threading.Thread(target=load) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for app in made[1:]:
                app.deploy()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert {status for status, _ in answers} == {200}, json.dumps(answers[-20:])
        assert httpx.get(url).text == "version 20"
        assert len({text for _, text in answers}) >= 15, "each version had its turn"
