"""Tunnels: a loopback port of this machine for each port of a container that was asked for.

What connects here is carried into the container by `Container.dial`, so it works whatever network
the container has.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute, SocketStream, TaskStatus

from minimodal.errors import Error, InvalidError, NotFoundError
from minimodal.protocols import Container, Reply
from minimodal.types import Payload, new_id

from .ops import Caller

if TYPE_CHECKING:
    from .engine import Engine

LOOPBACK = "127.0.0.1"
MAX_CONNECTIONS = 256  # of one tunnel at a time; further ones wait
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


@dataclass(slots=True)
class Traffic:
    """How many connections are open: who uses a sandbox keeps it awake."""

    open: int = 0


async def serve(
    container: Container,
    port: int,
    traffic: Traffic,
    *,
    task_status: TaskStatus[int] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Carry connections until cancelled; tells the port of this machine that it listens on."""
    limiter = anyio.CapacityLimiter(MAX_CONNECTIONS)

    async def carry(client: SocketStream) -> None:
        async with client, limiter:
            traffic.open += 1
            try:
                with suppress(Error, *BROKEN):  # nobody listens there yet, or it went away
                    inside: ByteStream = await container.dial(port)
                    async with inside:
                        await _join(client, inside)
            finally:
                traffic.open -= 1

    async with await anyio.create_tcp_listener(local_host=LOOPBACK) as listener:
        task_status.started(int(listener.extra(SocketAttribute.local_port)))
        await listener.serve(carry)


async def _join(one: ByteStream, other: ByteStream) -> None:
    """Both ways, until both have said that they are done, or one breaks."""
    async with anyio.create_task_group() as tasks:

        async def move(source: ByteStream, target: ByteStream) -> None:
            try:
                async for data in source:
                    await target.send(data)
                await target.send_eof()
            except BROKEN:
                tasks.cancel_scope.cancel()

        tasks.start_soon(move, one, other)
        tasks.start_soon(move, other, one)


class TunnelOps:
    """`minimodal.forward` inside a function: `tunnel.open` and `tunnel.close`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._open: dict[str, anyio.CancelScope] = {}
        engine.ops.add("tunnel.open", self.open)
        engine.ops.add("tunnel.close", self.close)

    async def open(self, caller: Caller, fields: Mapping[str, Any], payload: Payload) -> Reply:
        session = caller.session
        if session is None or session.container is None:
            raise InvalidError("forward() works inside a container only; here the port is yours")
        tunnel = new_id("tu")
        port = await self._engine.tasks.start(
            self._serve, tunnel, session.container, check_port(fields["port"]), session.gone
        )
        return Reply({"id": tunnel, "host": LOOPBACK, "port": port})

    def close(self, caller: Caller, fields: Mapping[str, Any], payload: Payload) -> Reply:
        scope = self._open.get(fields["id"])
        if scope is None:
            raise NotFoundError(f"no tunnel {fields['id']} is open")
        scope.cancel()
        return Reply({})

    async def _serve(
        self,
        tunnel: str,
        container: Container,
        port: int,
        gone: anyio.Event,
        *,
        task_status: TaskStatus[int],
    ) -> None:
        """Until it is closed, or its container is gone."""
        try:
            async with anyio.create_task_group() as tasks:
                self._open[tunnel] = tasks.cancel_scope
                task_status.started(await tasks.start(serve, container, port, Traffic()))
                await gone.wait()
                tasks.cancel_scope.cancel()
        finally:
            self._open.pop(tunnel, None)


def check_port(port: object) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise InvalidError(f"a port is a number from 1 to 65535, not {port!r}")
    return port
