"""Ports: tunnels of sandboxes, `forward` in functions, and sandboxes without a network."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

import pytest

import minimodal
from minimodal import Probe, Sandbox, errors
from minimodal.errors import ConflictError, InvalidError
from tests.sandbox import functions

SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello from inside")
    def log_message(self, *words): pass
server = http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
"""


def free_port() -> int:
    """Plain processes and bubblewrap share the ports of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_tunnel_reaches_a_server_inside(address: str) -> None:
    port = free_port()
    box = Sandbox.create("python3", "-c", SERVER, address, str(port), encrypted_ports=[port])
    assert box.stdout.readline() == "ready\n"
    tunnel = box.tunnels()[port]
    assert (tunnel.host, tunnel.url) == ("127.0.0.1", f"http://127.0.0.1:{tunnel.port}")
    assert tunnel.port != port
    for _ in range(2):
        with urlopen(tunnel.url, timeout=20) as answer:
            assert answer.read() == b"hello from inside"
    box.terminate()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(tunnel.tcp_socket, timeout=5)


def test_a_port_where_nobody_listens() -> None:
    port = free_port()
    box = Sandbox.create(unencrypted_ports=[port])
    with socket.create_connection(box.tunnels()[port].tcp_socket, timeout=20) as peer:
        assert peer.recv(10) == b""
    box.terminate()


def test_without_a_network(backend: str) -> None:
    if backend == "process":
        with pytest.raises(ConflictError, match="--backend"):
            Sandbox.create(block_network=True)
        return
    port = free_port()
    box = Sandbox.create(
        "python3", "-c", SERVER, "127.0.0.1", str(port), block_network=True, encrypted_ports=[port]
    )
    assert box.stdout.readline() == "ready\n"
    with urlopen(box.tunnels()[port].url, timeout=20) as answer:
        assert answer.read() == b"hello from inside"
    out = "import socket; socket.create_connection(('192.0.2.1', 9), timeout=5)"
    away = box.exec("python3", "-c", out)
    assert "unreachable" in away.stderr.read()
    box.terminate()


def test_functions_use_sandboxes_and_forward_ports() -> None:
    with functions.app.run():
        assert functions.use_a_sandbox.remote("print(6 * 7); exit(5)") == ("42\n", 5)
        box = Sandbox.create()
        assert functions.use_this_sandbox.remote(box) == "from a function\n"
        pair = functions.meet_in_this_sandbox
        calls = [pair.spawn(box, "one", "two"), pair.spawn(box, "two", "one")]
        assert [call.get() for call in calls] == ["two\n", "one\n"]
        box.terminate()
        items = iter(functions.serve_once.remote_gen("pong"))
        url, host, port = next(items)
        assert url == f"http://{host}:{port}"
        with socket.create_connection((host, port), timeout=20) as peer:
            peer.sendall(b"ping")
            assert peer.recv(100) == b"pong"
        assert list(items) == [b"ping"]


def test_forward_outside_a_container() -> None:
    with pytest.raises(InvalidError, match="container"), minimodal.forward(8000):
        pass
    with pytest.raises(InvalidError, match="65535"):
        minimodal.forward(0)


def test_ready_when_its_port_is() -> None:
    port, waits = (
        free_port(),
        "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)",
    )
    box = Sandbox.create(
        "python3",
        "-c",
        waits + SERVER,
        "127.0.0.1",
        str(port),
        readiness_probe=Probe.with_tcp(port),
    )
    try:
        with pytest.raises(errors.TimeoutError, match=f"{box.object_id} was not ready after 0.5 s"):
            box.wait_until_ready(timeout=0.5)
        box.exec("touch", "go").wait()
        box.wait_until_ready(timeout=30)
        box.wait_until_ready(timeout=0.001)  # known now
    finally:
        box.terminate()


def test_ready_when_its_program_says_so() -> None:
    box = Sandbox.create(readiness_probe=Probe.with_exec("test", "-e", "ready", interval_ms=5))
    other = Sandbox.from_id(box.object_id)
    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(each.wait_until_ready, timeout=30) for each in (box, other)]
        box.exec("touch", "ready").wait()
        assert [each.result() for each in waits] == [None, None]
    box.terminate()


def test_one_that_ends_before_it_is_ready() -> None:
    box = Sandbox.create("sh", "-c", "exit 3", readiness_probe=Probe.with_exec("false"))
    with pytest.raises(errors.SandboxTerminatedError, match="its command has ended"):
        box.wait_until_ready(timeout=30)
    box.terminate()


def test_wrong_probes(box: Sandbox) -> None:
    with pytest.raises(InvalidError, match="has no probe: give Sandbox"):
        box.wait_until_ready()
    with pytest.raises(InvalidError, match="65535"):
        Probe.with_tcp(0)
    with pytest.raises(InvalidError, match="as texts"):
        Probe.with_exec()
    with pytest.raises(InvalidError, match="milliseconds above 0"):
        Probe.with_tcp(80, interval_ms=0)
    with pytest.raises(InvalidError, match="readiness_probe is a Probe"):
        Sandbox.create(readiness_probe=80)  # type: ignore[arg-type]  # on purpose
