"""Containers are gone when we say so: removal that survives cancellation, a slow engine, and ghosts.

A ghost is a container that a request made which we had given up on: it appears later, under the
name that we know, and is removed then.
"""

from __future__ import annotations

import contextlib
import logging

import anyio
from anyio.abc import TaskGroup

from .docker_api import DockerApi
from .docker_requests import DockerFailure

log = logging.getLogger(__name__)

REMOVE_WITHIN = 15.0
GHOST_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Removal:
    """Removes containers by name or id; what cannot be removed now, in tasks of the backend."""

    def __init__(self, api: DockerApi, tasks: TaskGroup) -> None:
        self._api = api
        self._tasks = tasks

    async def remove(self, name: str, *, may_appear_later: bool = False) -> None:
        """Never raises, and is not cut short by a cancellation."""
        with anyio.CancelScope(shield=True):
            try:
                found = await self._api.remove(name, within=REMOVE_WITHIN)
            except DockerFailure as error:
                log.warning("container %s is removed as soon as Docker answers: %s", name, error)
                found, may_appear_later = False, True
        if may_appear_later and not found:
            self._tasks.start_soon(self._remove_later, name)

    def remove_soon(self, name: str) -> None:
        """Where nobody waits for it: a removal can take seconds, while the disk is busy."""
        self._tasks.start_soon(self.remove, name)

    async def after_failure(self, name: str, error: BaseException) -> None:
        """A container could not be made or started: it may be there, or be there soon."""
        refused = isinstance(error, DockerFailure) and error.status != 0
        await self.remove(name, may_appear_later=not refused)

    async def _remove_later(self, name: str) -> None:
        for delay in GHOST_DELAYS:
            await anyio.sleep(delay)
            with contextlib.suppress(DockerFailure):
                if await self._api.remove(name, within=5):
                    return
