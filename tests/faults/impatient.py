"""A gateway that loses its patience within a test's time, and bytes of any kind for it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx

from minimodal.config import load_config
from minimodal.gateway.limits import Limits
from minimodal.host import Host
from tests.gateway import functions

LIMITS = Limits(
    header_seconds=1.0,
    body_idle=1.0,
    write_idle=1.5,
    body_bytes=2_000_000,
    connections=250,
    header_bytes=32 * 1024,
)


class QuickHost(Host):
    def _gateway_settings(self):  # type: ignore[no-untyped-def]
        return replace(super()._gateway_settings(), limits=LIMITS)


@contextlib.contextmanager
def impatient() -> Iterator[int]:
    """The port of such a gateway; the endpoint `everything` is warm."""
    with QuickHost(load_config({"backend": "process", "port": 0})) as host, functions.app.run():
        httpx.get(f"{host.door.url}everything/").raise_for_status()
        yield host.door.port


def raw(port: int, request: bytes, wait: float = 5.0) -> bytes:
    """What comes back for these bytes, until the server closes or says nothing more."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(wait)
        with contextlib.suppress(ConnectionError, TimeoutError):
            sock.sendall(request)
        parts = []
        with contextlib.suppress(ConnectionError, TimeoutError):
            while part := sock.recv(65536):
                parts.append(part)
        return b"".join(parts)
