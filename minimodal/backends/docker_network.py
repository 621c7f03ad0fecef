"""The network namespace that an engine's containers share.

Making a namespace is most of a container's start (measured: 237 of 268 ms; joining one 132 ms), so
one idle container holds one, made beside the first real container, and the later ones join it.
They then share loopback ports as processes of one machine do; what must not, asks for its own.
"""

from __future__ import annotations

import logging

import anyio

from .docker_api import DockerApi, DockerFailure
from .docker_spec import NAME, STDIN_UNTIL_DEATH, WALLS, Owner

log = logging.getLogger(__name__)

OWN = "bridge"  # a namespace of the container's own, with a way out
ISOLATED = "none"
ATTEMPTS = 3  # then every container gets its own namespace, which always works
IDLE = "import sys; sys.stdin.buffer.read()"


class SharedNetwork:
    """Tells which network to start a container in; `hold` keeps the shared one alive."""

    def __init__(self, api: DockerApi, owner: Owner) -> None:
        self._api = api
        self._owner = owner
        self._holder: str | None = None
        self._held = False
        self._failures = 0

    def mode(self) -> str:
        """The value of `NetworkMode` for the next container."""
        return f"container:{self._holder}" if self._holder else OWN

    def distrust(self) -> None:
        """A container could not join: use own namespaces until a new holder runs."""
        self._holder = None

    @property
    def wanted(self) -> bool:
        """Whether somebody should run `hold`."""
        return not self._held and self._failures < ATTEMPTS

    async def hold(self, image: str, python: str, user: str) -> None:
        """Keep a namespace for as long as the holder lives. Never raises: it only saves time."""
        self._held = True
        name = f"{NAME}{self._owner.engine}-net-{self._failures}"
        try:
            await self._hold(name, image, python, user)
            self._failures += 1  # it ran and died: the next launch makes another one
        except DockerFailure as error:
            self._failures += 1
            log.info("no shared network namespace, containers start slower: %s", error)
        finally:
            self._holder, self._held = None, False
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await self._remove(name)

    async def _hold(self, name: str, image: str, python: str, user: str) -> None:
        request = {
            "Image": image,
            "Entrypoint": [python, "-S", "-c", IDLE],
            "Cmd": [],
            "User": user,
            **STDIN_UNTIL_DEATH,
            "Labels": self._owner.labels(),
            "HostConfig": {**WALLS, "NetworkMode": OWN, "PidsLimit": 16, "AutoRemove": True},
        }
        container = await self._api.create(name, request)
        async with self._api.attach(container, stdin=True) as stream:
            await self._api.start(container)
            self._holder = container
            while await stream.read() is not None:
                pass

    async def _remove(self, name: str) -> None:
        try:
            await self._api.remove(name, within=4)
        except DockerFailure as error:
            log.debug("the network holder %s goes by itself: %s", name, error)
