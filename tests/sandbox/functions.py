"""Functions that use sandboxes and tunnels from inside their containers."""

from __future__ import annotations

import minimodal

app = minimodal.App("sandbox-users")


@app.function()
def use_a_sandbox(code: str) -> tuple[str, int]:
    box = minimodal.Sandbox.create("python3", "-c", code, timeout=30)
    said = box.stdout.read()
    box.wait()
    return said, box.returncode or 0


@app.function()
def use_this_sandbox(box: minimodal.Sandbox) -> str:
    said = box.exec("echo", "from a function").stdout.read()
    assert isinstance(said, str)
    return said


@app.function(max_containers=2)
def meet_in_this_sandbox(box: minimodal.Sandbox, mine: str, other: str) -> str:
    """Two of these, in two containers at once, use one sandbox."""
    script = f"echo {mine} > /tmp/{mine}; until test -s /tmp/{other}; do sleep 0.01; done; cat /tmp/{other}"
    said = box.exec("sh", "-c", script, timeout=30).stdout.read()
    assert isinstance(said, str)
    return said


@app.function()
def serve_once(answer: str) -> object:
    """Yields where it listens, answers one connection, and says what it heard."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        with minimodal.forward(server.getsockname()[1]) as tunnel:
            yield (tunnel.url, *tunnel.tcp_socket)
            peer, _ = server.accept()
            with peer:
                heard = peer.recv(100)
                peer.sendall(answer.encode())
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)  # until the other side has read it: leaving the block cuts it off
    yield heard
