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
from .docker_requests import ANSWER_WITHIN, DockerFailure

log = logging.getLogger(__name__)

REMOVE_WITHIN = 15.0
GHOSTS_AT_END = 5.0
GHOST_DELAYS = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class Removal:
    """Removes containers by name or id; what cannot be removed now, in tasks of the backend."""

    def __init__(self, api: DockerApi, tasks: TaskGroup) -> None:
        self._api = api
        self._tasks = tasks

    async def remove(self, name: str) -> None:
        """Never raises, and is not cut short by a cancellation."""
        with anyio.CancelScope(shield=True):
            try:
                found = await self.remove_now(name, REMOVE_WITHIN)
                later = not found and name in self._api.unanswered
            except DockerFailure as error:
                log.warning("container %s is removed as soon as Docker answers: %s", name, error)
                later = True
        if later:
            self._tasks.start_soon(self._remove_later, name)

    def remove_soon(self, name: str) -> None:
        """Where nobody waits for it: a removal can take seconds, while the disk is busy."""
        self._tasks.start_soon(self.remove, name)

    async def remove_now(self, name: str, within: float = ANSWER_WITHIN) -> bool:
        """False: there was none. Raises DockerFailure."""
        found = await self._api.remove(name, within=within)
        if found:
            self._api.unanswered.discard(name)
        return found

    async def wait_for_ghosts(self) -> None:
        """At the end: remove what still appears within `GHOSTS_AT_END` seconds, if Docker answers."""
        with contextlib.suppress(DockerFailure), anyio.move_on_after(GHOSTS_AT_END):
            while self._api.unanswered:
                for name in sorted(self._api.unanswered):
                    await self.remove_now(name)
                await anyio.sleep(0.2)

    async def _remove_later(self, name: str) -> None:
        for delay in GHOST_DELAYS:
            await anyio.sleep(delay)
            with contextlib.suppress(DockerFailure):
                if await self.remove_now(name, within=5):
                    return
        self._api.unanswered.discard(name)
