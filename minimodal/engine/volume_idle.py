"""Views that their containers have left as they were: the next container of a volume gets one of them.

Copying a large volume takes seconds; most functions only read what is there. A view that was changed
in any way is never used again. All methods run on the engine's loop; files are touched on threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from anyio import to_thread

from minimodal.clock import Clock
from minimodal.types import new_id

from .volume_view import View

KEPT = 4  # views, of all volumes together: each takes as much disk as its volume
KEPT_SECONDS = 600.0

Key = tuple[str, str]  # volume, path in it


class IdleViews:
    """Owned by `Volumes`. `directory`: where they lie, under a name that is no container's."""

    def __init__(self, directory: Path, engine: str, clock: Clock) -> None:
        self._directory = directory
        self._engine = engine
        self._clock = clock
        self._views: dict[Key, tuple[View, float]] = {}  # the oldest first

    def take(self, key: Key) -> View | None:
        found = self._views.pop(key, None)
        return found[0] if found else None

    async def keep_or_remove(self, key: Key, view: View) -> None:
        """A container has ended and left this view, committed."""
        if view.read_only or not await to_thread.run_sync(_is_worth_keeping, view):
            await to_thread.run_sync(view.remove)
            return
        place = self._directory / f"{self._engine}.{new_id('idle')}"
        await to_thread.run_sync(view.renew, place, view.target)
        earlier = self._views.pop(key, None)
        self._views[key] = view, self._clock.monotonic()
        if earlier is not None:
            await to_thread.run_sync(earlier[0].remove)
        await self.drop(lambda rank, since, _: rank >= KEPT)

    async def drop_old(self) -> None:
        limit = self._clock.monotonic() - KEPT_SECONDS
        await self.drop(lambda _, since, __: since < limit)

    async def drop(self, wanted: Callable[[int, float, Key], bool]) -> bool:
        """Remove those that `wanted` names, by rank (0: the newest), time of arrival, and key."""
        newest_first = enumerate(reversed(self._views.items()))
        gone = [key for rank, (key, (_, since)) in newest_first if wanted(rank, since, key)]
        views = [self._views.pop(key)[0] for key in gone]
        for view in views:
            await to_thread.run_sync(view.remove)
        return bool(views)


def _is_worth_keeping(view: View) -> bool:
    view.store.require()
    return view.has_files and view.is_untouched()
