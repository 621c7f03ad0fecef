"""Puts the parts of an open gateway together: socket, server, endpoints, platform."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from .app import Gateway
from .door import Settings
from .guard import LOOPBACK, Guard
from .metrics import Metrics
from .platform import Platform
from .server import bind, serve
from .tokens import TokenFile

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .seam import Ask, WebHost


async def start(
    web: WebHost, ask: Ask, settings: Settings, tasks: TaskGroup, stack: AsyncExitStack
) -> int:
    """Serve until `stack` ends. Returns the port."""
    sock = bind(settings.host, settings.port, strict=settings.strict_port)
    on_loopback = settings.host.startswith(LOOPBACK)
    guard = Guard(TokenFile(settings.tokens), settings.limits, open_to_all=on_loopback)
    metrics = Metrics()
    gateway = Gateway(
        web,
        tasks,
        Platform(ask, guard, metrics, settings.limits),
        limits=settings.limits,
        show_errors=settings.show_errors,
        names=settings.names,
        observe=metrics.observe,
        guard=guard,
    )
    await stack.enter_async_context(serve(gateway, sock, settings.limits))
    return int(sock.getsockname()[1])
