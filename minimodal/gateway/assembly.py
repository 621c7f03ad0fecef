"""Puts the parts of an open gateway together: socket, server, endpoints, platform."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from .app import Gateway
from .door import Settings
from .server import bind, serve

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .seam import Ask, WebHost


async def start(
    web: WebHost, ask: Ask, settings: Settings, tasks: TaskGroup, stack: AsyncExitStack
) -> int:
    """Serve until `stack` ends. Returns the port."""
    sock = bind(settings.host, settings.port, strict=settings.strict_port)

    async def platform(scope: object, receive: object, send: object) -> None:
        from .answers import Answer
        from .app import refuse

        await refuse(scope, send, Answer(404, "Not found."))

    gateway = Gateway(
        web,
        tasks,
        platform,
        limits=settings.limits,
        show_errors=settings.show_errors,
        names=settings.names,
    )
    await stack.enter_async_context(serve(gateway, sock, settings.limits))
    return int(sock.getsockname()[1])
