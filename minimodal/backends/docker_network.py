"""The network namespace that an engine's containers share.

Making a namespace is most of a container's start (measured: 237 of 268 ms; joining one 132 ms), so
one idle container holds one and the others join it. It is started as soon as the engine opens, from
the image that was used last here, else before the first container. Containers then share loopback
ports as processes of one machine do; what must not, asks for its own.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from .docker_api import DockerApi
from .docker_removal import Removal
from .docker_requests import DockerFailure
from .docker_spec import NAME, STDIN_UNTIL_DEATH, WALLS, Owner

log = logging.getLogger(__name__)

OWN = "bridge"  # a namespace of the container's own, with a way out
ISOLATED = "none"
ATTEMPTS = 3  # then every container gets its own namespace, which always works
# Namespaces are made one after the other whoever asks, so waiting for the shared one costs a first
# container 40 ms (measured), and saves each of the others that start with it 150 to 1,000.
WORTH_WAITING = 2.0
IDLE = "import sys; sys.stdin.buffer.read()"


class SharedNetwork:
    """Tells which network to start a container in, and keeps the shared one alive.

    `note` is a file that names the image used last.
    """

    def __init__(
        self, api: DockerApi, removal: Removal, owner: Owner, user: str, note: Path
    ) -> None:
        self._api = api
        self._removal = removal
        self._owner = owner
        self._user = user
        self._note = note
        self._holder: str | None = None
        self._making: anyio.Event | None = None  # set when the one on its way is there, or fails
        self._failures = 0

    async def mode(self) -> str:
        """The value of `NetworkMode` for the next container."""
        if self._making is not None:
            with anyio.move_on_after(WORTH_WAITING):
                await self._making.wait()
        return f"container:{self._holder}" if self._holder else OWN

    def ensure(self, tasks: TaskGroup, image: str, python: str) -> None:
        """See to it that there is a holder, or one on its way."""
        if self._making is None and self._holder is None and self._failures < ATTEMPTS:
            self._making = anyio.Event()
            tasks.start_soon(self._hold_with, image, python)

    def ensure_as_last_time(self, tasks: TaskGroup) -> None:
        """`ensure`, with the image that was used last in this home, if there was one."""
        with contextlib.suppress(OSError, ValueError):
            image, python = self._note.read_text().split("\n")
            self.ensure(tasks, image, python)

    def distrust(self) -> None:
        """A container could not join: use own namespaces until a new holder runs."""
        self._holder = None

    async def _hold_with(self, image: str, python: str) -> None:
        """Keep a namespace for as long as its holder lives. Never raises: it only saves time."""
        name = f"{NAME}{self._owner.engine}-net-{self._failures}"
        try:
            await self._hold(name, image, python)
        except DockerFailure as error:
            log.info("no shared network namespace, containers start slower: %s", error)
        finally:
            self._failures += (
                1  # it could not start, or has died: the next launch makes another one
            )
            self._holder = None
            self._made()
            await self._removal.remove(name)

    def _made(self) -> None:
        if self._making is not None:
            self._making.set()
            self._making = None

    async def _hold(self, name: str, image: str, python: str) -> None:
        request = {
            "Image": image,
            "Entrypoint": [python, "-S", "-c", IDLE],
            "Cmd": [],
            "User": self._user,
            **STDIN_UNTIL_DEATH,
            "Labels": self._owner.labels(),
            "HostConfig": {**WALLS, "NetworkMode": OWN, "PidsLimit": 16, "AutoRemove": True},
        }
        container = await self._api.create(name, request)
        async with self._api.attach(container, stdin=True) as stream:
            await self._api.start(container)
            self._holder = container
            self._made()
            with contextlib.suppress(OSError):  # only saves time, next time
                self._note.write_text(f"{image}\n{python}")
            while await stream.read() is not None:
                pass
