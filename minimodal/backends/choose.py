"""Which backend runs the containers: the one asked for, or the first that works here.

Docker first, because it isolates most; then bubblewrap, which needs no daemon; then plain processes.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from minimodal.errors import InvalidError, RuntimeUnavailable
from minimodal.home import Home
from minimodal.protocols import Backend

ORDER = ("docker", "bubblewrap", "process")
SEVERAL = {"auto": ORDER, "embedded": ORDER[1:]}
"""Names that stand for the first that works. Embedded ones need no daemon: tests run on them."""


class Choice(NamedTuple):
    """An open backend, and one line for people: which it is and why."""

    backend: Backend
    why: str
    refused: tuple[tuple[str, str], ...] = ()  # (name, reason) of those tried before


@asynccontextmanager
async def open_best(name: str, home: Home, config: Any) -> AsyncIterator[Choice]:
    """Open the backend of that name; "auto" takes the first of docker, bubblewrap, process;
    "embedded" the first of bubblewrap, process.

    Raises RuntimeUnavailable with the reasons, InvalidError for a name that is none.
    """
    if name not in SEVERAL and name not in ORDER:
        known = ", ".join(("auto", *ORDER, "embedded"))
        raise InvalidError(f"there is no backend {name!r}; there are {known}")
    refused: list[tuple[str, str]] = []
    async with AsyncExitStack() as stack:
        for candidate in SEVERAL.get(name, (name,)):
            try:
                backend = await stack.enter_async_context(_open(candidate, home, config))
            except RuntimeUnavailable as error:
                if name not in SEVERAL:
                    raise
                refused.append((candidate, str(error)))
                continue
            yield Choice(backend, _why(candidate, name, refused), tuple(refused))
            return
        reasons = "; ".join(f"{candidate}: {reason}" for candidate, reason in refused)
        raise RuntimeUnavailable(f"no backend works here. {reasons}")


@asynccontextmanager
async def _open(name: str, home: Home, config: Any) -> AsyncIterator[Backend]:
    """Each backend's module is imported only if it is tried: Docker's alone costs 200 ms."""
    try:
        module = importlib.import_module(f"minimodal.backends.{name}")
    except ImportError as error:
        raise RuntimeUnavailable(f"it cannot be loaded ({error})") from error
    async with module.open_backend(home, config) as backend:
        yield backend


def _why(chosen: str, asked: str, refused: list[tuple[str, str]]) -> str:
    if asked not in SEVERAL:
        return f"{chosen}, as asked for"
    if not refused:
        return f"{chosen}, the first choice"
    short = [f"{name}: {reason.partition(': ')[0].rstrip('.')}" for name, reason in refused]
    return f"{chosen}, because {'; '.join(short)} (`minimodal doctor` says more)"
