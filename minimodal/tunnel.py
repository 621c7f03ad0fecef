"""`forward`: make a port of a function's container reachable on the machine that it runs on."""

from __future__ import annotations

from dataclasses import dataclass

from . import context
from .errors import CallLost, InvalidError, NotFoundError, NotRunningError
from .face import BothContext


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Where a container's port is: `host` and `port` of the machine that hosts it, with its `scheme`.

    What connects there reaches the container over this machine alone, so there is no TLS.
    """

    host: str
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        """Such as "http://127.0.0.1:40123"."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def tls_socket(self) -> tuple[str, int]:
        """(host, port). Plain TCP here, unlike Modal's."""
        return self.host, self.port

    @property
    def tcp_socket(self) -> tuple[str, int]:
        """(host, port) for a raw TCP connection."""
        return self.host, self.port


class Forward(BothContext[Tunnel]):
    """The block of `forward()`; works with `with` and `async with`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._id = ""

    async def _enter(self) -> Tunnel:
        if context.container is None:
            raise InvalidError(
                "forward() works inside a function's container; here the port is on this machine already"
            )
        found = (await context.ask("tunnel.open", port=self._port)).fields
        self._id = found["id"]
        return Tunnel(found["host"], found["port"])

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await context.ask("tunnel.close", id=self._id)
        except (NotFoundError, NotRunningError, CallLost):
            pass  # it went with its container or its engine


def forward(port: int, *, unencrypted: bool = False, h2_enabled: bool = False) -> Forward:
    """Make a port of this container reachable on its machine: `with forward(8000) as tunnel:`.

    The block's value has `url`, `host`, `port` and `tcp_socket`. Connections that come before the
    server listens are closed. `unencrypted` and `h2_enabled` change nothing on one machine.
    Raises InvalidError for what is no port, and outside a container when the block is entered.
    """
    del unencrypted, h2_enabled
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise InvalidError(f"forward() takes a port from 1 to 65535, not {port!r}")
    return Forward(port)
