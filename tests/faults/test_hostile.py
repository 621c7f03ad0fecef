"""A container that says what it may not: F97, F98, F52. The client here speaks raw bytes."""

from __future__ import annotations

import json
import random
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from minimodal import wire
from minimodal.backends.sockets import MAX_STREAMS
from minimodal.errors import CallLost
from minimodal.home import open_home
from minimodal.wire import HEADER, Kind, encode
from tests.faults.functions import do, neighbour
from tests.faults.suite import Platform, on

Seen = Callable[[str], None]

HELLO = b"".join(encode(Kind.HELLO, meta=json.dumps({"role": "client", "version": wire.VERSION})))


def said(role: str, **fields: object) -> bytes:
    return b"".join(encode(Kind.HELLO, meta=json.dumps({"role": role, **fields})))


BAD = {
    "length 2**63": HELLO + HEADER.pack(Kind.REQUEST, 0, 0, 0, 1, 2**63),
    "meta of 4 GB": HELLO + HEADER.pack(Kind.REQUEST, 0, 0, 2**32 - 1, 1, 0),
    "65535 buffers": HELLO + HEADER.pack(Kind.REQUEST, 0, 65535, 0, 1, 0),
    "unknown kind": HELLO + HEADER.pack(200, 0, 0, 0, 1, 0),
    "another version": said("client", version=wire.VERSION + 1),
    "no hello": b"".join(encode(Kind.REQUEST, 1, "[]")),
    "not JSON": HELLO + b"".join(encode(Kind.REQUEST, 1, "{")),
    "not a list": HELLO + b"".join(encode(Kind.REQUEST, 1, "7")),
    "wrong kind": HELLO + b"".join(encode(Kind.RESULT, 1, "0.1")),
    "unknown role": said("king"),
    "no role": b"".join(encode(Kind.HELLO, meta="{}")),
    "hello is a list": b"".join(encode(Kind.HELLO, meta="[1]")),
    "second supervisor": said("supervisor", version=wire.VERSION),
    "slot of another": said("executor", slot=0),
    "slot 10**9": said("executor", slot=10**9),
    "slot as a list": said("executor", slot=[]),
    "random": random.Random(7).randbytes(100_000),
    "truncated": HELLO[:-3],
}


@pytest.fixture
def path(platform: Platform) -> Path:
    """The socket of the container that `do` runs in."""
    do.remote("fine")
    sockets = open_home().runtime / "c" / platform.engine.id
    return max(sockets.glob("*/engine.sock"), key=lambda each: each.stat().st_mtime)


def is_cut_off(path: Path, data: bytes) -> float:
    """Seconds until the engine hangs up on who sends this."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(5)
        sock.connect(str(path))
        started = time.monotonic()
        try:
            sock.sendall(data)
            if data == HELLO[:-3]:
                sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass
        return time.monotonic() - started


@on("process")
@pytest.mark.fault(
    "F97",
    injected="18 kinds of bad bytes on a container's socket",
    expected="cut off in 1 s, memory flat, the container's calls go on",
)
@pytest.mark.parametrize("what", BAD)
def test_f97_bad_frames(platform: Platform, path: Path, seen: Seen, what: str) -> None:
    running = platform.start(do, "sleep", 0.2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    took = is_cut_off(path, BAD[what])
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert took < 4.0
    assert grown < 16
    running.result(5)
    seen(f"{what}: cut off after {took * 1e3:.0f} ms")


@on("process")
@pytest.mark.fault(
    "F97",
    injected="a hundred thousand empty frames at once; one byte at a time",
    expected="answered or cut off; other calls go on",
)
def test_f97_many_and_slow_frames(platform: Platform, path: Path, seen: Seen) -> None:
    request = b"".join(encode(Kind.ABANDON, 1))
    with socket.socket(socket.AF_UNIX) as many, socket.socket(socket.AF_UNIX) as slow:
        many.connect(str(path))
        slow.connect(str(path))
        many.sendall(HELLO + request * 100_000)
        for byte in HELLO:
            slow.send(bytes([byte]))
        started = time.monotonic()
        assert neighbour.remote("fine") == "fine"
    seen(f"a neighbour's call meanwhile: {(time.monotonic() - started) * 1e3:.0f} ms")


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F98",
    injected="RESULT for a call of another slot, twice for its own, READY, YIELD for no generator",
    expected="refused by ownership: that container ends, the other call's outcome is its own",
)
@pytest.mark.parametrize("kind", ["RESULT", "YIELD", "EXITED"])
def test_f98_frames_that_lie(platform: Platform, seen: Seen, kind: str) -> None:
    other = platform.start(neighbour, "sleep", 1.0)
    with pytest.raises(CallLost, match="broke the protocol") as caught:
        do.remote("send", kind, 1_000_000, 1)
    assert other.result(10) is None
    seen(str(caught.value)[:100])


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F101",
    injected="a container opens 3,000 connections to the engine and holds them",
    expected="bounded for each container; others connect; later ones of its own too",
)
def test_f101_many_connections(platform: Platform, seen: Seen) -> None:
    flood = platform.start(do, "connect", 3000)
    for _ in range(5):
        assert neighbour.remote("fine") == "fine"
    fresh = neighbour.with_options(timeout=77)
    assert fresh.remote("fine") == "fine"
    refused = flood.result(30)
    assert refused > 3000 - MAX_STREAMS
    assert do.remote("who").startswith("who"), "its own calls go on"
    seen(f"{refused} of 3000 refused; a new container of another function connects")


@on("process")
@pytest.mark.fault(
    "F52",
    injected="an executor answers a call twice",
    expected="the first answer counts, the container that said more is ended",
)
def test_f52_answer_arrives_twice(platform: Platform, seen: Seen) -> None:
    with pytest.raises(Exception):  # noqa: B017, PT011  # an empty RESULT cannot be unpickled
        do.remote("send", "RESULT", 0, 2)
    seen("the first counts")
