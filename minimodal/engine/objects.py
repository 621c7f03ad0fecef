"""What an engine has beside calls: secrets, dicts, queues, volumes. One `Objects` for each engine.

Commands that work on the home without an engine open one too (offline.py): what is here must not
know the engine, only its operations.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import NamedTuple

import anyio

from minimodal.clock import Clock, SystemClock
from minimodal.home import Home
from minimodal.types import Mount, VolumeMount

from .dicts import Dicts
from .object_store import ObjectStore
from .ops import Ops
from .queues import Queues, Waiting
from .secrets import Secrets
from .volumes import Volumes


class Given(NamedTuple):
    """What a container gets of its function's secrets and volumes."""

    variables: dict[str, str]
    mounts: tuple[Mount, ...]


class Objects:
    """Made by `open_objects`."""

    def __init__(self, home: Home, engine: str, clock: Clock) -> None:
        self.home = home
        self.engine = engine
        self.clock = clock
        self.secrets = Secrets(home)
        self.store = ObjectStore(home, engine, clock)
        self.volumes = Volumes(home, engine, clock)

    def add_to(self, ops: Ops, waiting: Waiting = lambda call: nullcontext()) -> None:
        """Add the operations. `waiting`: see Engine.waiting."""
        self.secrets.add_to(ops)
        Dicts(ops, self.store)
        Queues(ops, self.store, waiting)
        self.volumes.add_to(ops)

    @asynccontextmanager
    async def given(
        self, container: str, secrets: Sequence[str], volumes: Sequence[VolumeMount]
    ) -> AsyncIterator[Given]:
        """The secrets' variables and the volumes' mounts of one container, for its life.

        Enter it before the container starts and leave it when it has ended: that commits what it
        wrote. Raises NotFoundError, StateError, VolumeError.
        """
        variables = await self.secrets.resolve(secrets)
        async with self.volumes.mounted(container, volumes) as mounts:
            yield Given(variables, mounts)


@asynccontextmanager
async def open_objects(
    home: Home, engine: str, clock: Clock | None = None, *, sweep: bool = True
) -> AsyncIterator[Objects]:
    """The objects of a home, for the engine of that id, whose lock is held.

    `sweep`: first remove what dead engines left behind, and end an interrupted rotation of keys.
    """
    objects = Objects(home, engine, clock or SystemClock())
    async with AsyncExitStack() as stack:
        stack.push_async_callback(objects.store.aclose)
        stack.push_async_callback(objects.volumes.aclose)
        if sweep:
            await anyio.to_thread.run_sync(objects.secrets.files.finish_rotation)
            await anyio.to_thread.run_sync(objects.volumes.files.sweep)
        yield objects
