"""Engines of this home that run in other processes, and which one has what is looked up.

The rule: what a script defines runs in the script's own engine. What it looks up, by a name or by the id
of a call, is taken from its own engine if that has it, else from the `minimodal up` of this home,
else from any other engine that runs here. A deployed app that nobody hosts is hosted by this process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import context
from .connection import Connection
from .engine_lock import EngineInfo, live_engines
from .errors import NotFoundError, NotRunningError
from .home import Home, locate_home

if TYPE_CHECKING:
    from .protocols import Client


_connections: dict[str, Connection] = {}
"""By socket: like the current client, one for the whole process."""


def connect(home: Home, engine: EngineInfo) -> Connection | None:
    """The connection to an engine in another process, or None if it doesn't answer."""
    path = home.engines / f"{engine.id}.sock"
    if not path.exists():
        return None
    connection = _connections.setdefault(str(path), Connection(str(path)))
    if connection.is_alive():
        return connection
    _connections.pop(str(path), None)
    return None


def disconnect() -> None:
    """Close all connections to engines of other processes; the next use opens new ones."""
    while _connections:
        _connections.popitem()[1].close()


def other_engines(home: Home | None = None) -> list[EngineInfo]:
    """The engines of other processes: `minimodal up` first, then the newest."""
    import os

    found = live_engines(home or locate_home())
    return sorted(
        (each for each in found if each.pid != os.getpid()),
        key=lambda each: (each.role != "up", -each.started),
    )


def running_up() -> Connection | None:
    """The `minimodal up` of this home, if one runs and answers."""
    home = locate_home()
    for engine in other_engines(home):
        if engine.role == "up":
            return connect(home, engine)
    return None


async def client_with(key: str) -> Client:
    """The client of an engine that has the function of that key. Raises NotFoundError."""
    missing: NotFoundError | None = None
    up_runs = False
    own = context.running_client()
    candidates: Iterator[tuple[Client, str]] = itertools.chain(
        [(own, "")] if own else [], _others()
    )
    for client, role in candidates:
        try:
            await context.ask("function.info", client=client, key=key)
        except NotFoundError as error:
            missing = missing or error
            up_runs |= role == "up"
        except NotRunningError:
            continue  # it stopped just now
        else:
            return client
    if missing is not None and up_runs:
        raise missing  # it would host it if it were deployed
    own = context.get_client()
    try:
        await context.ask("app.host", client=own, name=key.partition("/")[0])
    except NotFoundError as error:
        raise missing or error from None
    await context.ask("function.info", client=own, key=key)
    return own


def _others() -> Iterator[tuple[Connection, str]]:
    if not context.is_local():
        return  # a container sees its own engine only
    home = locate_home()
    for engine in other_engines(home):
        connection = connect(home, engine)
        if connection is not None:
            yield connection, engine.role


def client_for_calls() -> Client:
    """An engine to ask about any call of this home: they share what is on record."""
    own = context.running_client()
    if own is not None:
        return own
    for connection, _ in _others():
        return connection
    return context.get_client()
