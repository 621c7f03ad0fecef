"""`Door`: the gateway of one engine, which opens when something first needs it.

Importing this costs nothing: starlette and uvicorn come with the first endpoint or dashboard.
"""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from minimodal.home import open_home
from minimodal.types import WebEndpoint

from .limits import Limits

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from .seam import Ask, WebHost

log = logging.getLogger("minimodal.gateway")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the gateway reads of the configuration."""

    host: str = "127.0.0.1"
    port: int = 8787
    strict_port: bool = False
    show_errors: bool = False
    names: tuple[str, ...] = ()  # host names of ours besides localhost
    limits: Limits = field(default_factory=Limits)
    tokens: Path = field(default_factory=lambda: open_home().config / "tokens.json")


class Door:
    """Made by `open_door`. `open` may be asked any number of times."""

    def __init__(
        self, web: WebHost, ask: Ask, settings: Settings, tasks: TaskGroup, stack: AsyncExitStack
    ) -> None:
        self._web = web
        self._ask = ask
        self._settings = settings
        self._tasks = tasks
        self._stack = stack
        self._opening = anyio.Lock()
        self._by_name = False
        self.port = 0  # 0: not open
        self.on_open: Callable[[str], None] = lambda url: None

    @property
    def url(self) -> str:
        """Of the dashboard."""
        host = self._settings.host
        shown = "localhost" if host in ("127.0.0.1", "::1", "0.0.0.0", "::") else host
        return f"http://{shown}:{self.port}/"

    def url_of(self, endpoint: WebEndpoint) -> str:
        from .app import url_of

        return url_of(endpoint, self.port, self._by_name)

    async def open(self) -> None:
        """Bind the port and serve, once. Raises StateError where no port is free."""
        async with self._opening:
            if self.port:
                return
            from_thread = anyio.to_thread.run_sync
            await from_thread(importlib.import_module, "minimodal.gateway.server")
            assembly = await from_thread(importlib.import_module, "minimodal.gateway.assembly")
            self._by_name = await from_thread(resolves_localhost)
            self.port = await assembly.start(
                self._web, self._ask, self._settings, self._tasks, self._stack
            )
            wanted = self._settings.port
            if wanted and self.port != wanted:
                log.warning("port %d is taken; the gateway listens on %d", wanted, self.port)
            self.on_open(self.url)


@asynccontextmanager
async def open_door(web: WebHost, ask: Ask, settings: Settings) -> AsyncIterator[Door]:
    """A door for the length of the block; leaving it ends all connections."""
    async with anyio.create_task_group() as tasks:
        async with AsyncExitStack() as stack:
            yield Door(web, ask, settings, tasks, stack)
        tasks.cancel_scope.cancel()


def resolves_localhost() -> bool:
    """Whether programs of this machine find `label.localhost`; browsers do in any case."""
    try:
        socket.getaddrinfo("minimodal-looks.localhost", None)
    except OSError:
        return False
    return True
