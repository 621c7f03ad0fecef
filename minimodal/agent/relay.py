"""The way to an engine that sees none of our sockets: a Docker engine on another host or in a VM.

    python -u …/minimodal/agent/relay.py SOCKET      (in the container)

Listens on SOCKET, starts the agent, which connects there as anywhere, and carries all connections
over its own stdin and stdout. The other end (backends/docker_relay.py) makes as many connections to
the engine's socket. Standard library only; imports nothing of ours.

    | connection u32 | length u32 |  then the bytes; length 0: the connection has ended
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import sys
import threading

HEADER = struct.Struct("<II")
CHUNK = 256 * 1024

_writing = threading.Lock()
_waiting: dict[int, queue.SimpleQueue[bytes]] = {}  # what each connection is still to be given


def send(number: int, data: bytes) -> None:
    """Write one piece to the engine."""
    rest = memoryview(HEADER.pack(number, len(data)) + data)
    with _writing:
        while rest:
            rest = rest[os.write(1, rest) :]


def carry(number: int, sock: socket.socket) -> None:
    """From the agent to the engine, until the agent closes."""
    with contextlib.suppress(OSError):
        while data := sock.recv(CHUNK):
            send(number, data)
    with contextlib.suppress(OSError):
        send(number, b"")
    _waiting[number].put(b"")


def give(number: int, sock: socket.socket) -> None:
    """From the engine to the agent. A queue of its own: one that reads nothing holds up no other."""
    with contextlib.suppress(OSError):
        while data := _waiting[number].get():
            sock.sendall(data)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def accept(server: socket.socket) -> None:
    number = 0
    while True:
        sock, _ = server.accept()
        number += 1
        _waiting[number] = queue.SimpleQueue()
        for work in (carry, give):
            threading.Thread(target=work, args=(number, sock), daemon=True).start()


def read(length: int) -> bytes:
    """So many bytes of stdin. Raises EOFError when the engine is gone."""
    parts = []
    while length:
        part = os.read(0, min(length, CHUNK))
        if not part:
            raise EOFError
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def follow(agent: subprocess.Popen[bytes]) -> None:
    """What the engine says, to whom it is for; at the end of it the agent ends too."""
    try:
        while True:
            number, length = HEADER.unpack(read(HEADER.size))
            data = read(length)
            if number in _waiting:
                _waiting[number].put(data)
    except (EOFError, OSError):
        agent.kill()


def main(path: str) -> int:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(256)
    threading.Thread(target=accept, args=(server,), daemon=True).start()
    main_py = os.path.join(os.path.dirname(os.path.abspath(__file__)), "main.py")
    # Its stdout is ours to the engine: what it says besides its frames goes where errors go.
    agent = subprocess.Popen(
        [sys.executable, "-u", main_py, path], stdin=subprocess.DEVNULL, stdout=2
    )
    threading.Thread(target=follow, args=(agent,), daemon=True).start()
    code = agent.wait()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    here = os.path.realpath(os.path.dirname(__file__))
    sys.path[:] = [p for p in sys.path if os.path.realpath(p) != here]  # as main.py says
    os._exit(main(sys.argv[1]))
