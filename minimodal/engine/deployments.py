"""Deployments: every version of every deployed app, and which one runs. Each change is one commit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from minimodal import codec
from minimodal.clock import Clock
from minimodal.errors import InvalidError, NotFoundError, StateError
from minimodal.types import FunctionSpec

from .batch import Connection, Row
from .database import Database


class Deployment(NamedTuple):
    app: str
    version: int  # 1, 2, …; never used twice
    specs: tuple[FunctionSpec, ...]
    created: float
    note: str
    current: bool


class Deployments:
    """`store.deployments`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def deploy(self, app: str, specs: Sequence[FunctionSpec], *, note: str = "") -> int:
        """Make these functions the app's current version, and return its number."""
        text = json.dumps([codec.to_plain(spec) for spec in specs])
        now = self._clock.now()
        return await self._database.write(lambda c: _add(c, app, text, note, now), full=True)

    async def rollback(self, app: str, version: int | None = None) -> int:
        """Deploy an earlier version again, as a new one; None: the one before the current one."""
        now = self._clock.now()

        def operation(connection: Connection) -> int:
            query = (
                "SELECT max(version) FROM deployments "
                "WHERE app = ? AND version < (SELECT current FROM apps WHERE name = ?)"
            )
            wanted = version or connection.execute(query, (app, app)).fetchone()[0]
            query = "SELECT specs FROM deployments WHERE app = ? AND version = ?"
            row = connection.execute(query, (app, wanted)).fetchone()
            if row is None:
                raise NotFoundError(f"the app {app!r} has no version {wanted or 'before this one'}")
            return _add(connection, app, row[0], f"rollback to version {wanted}", now)

        return await self._database.write(operation, full=True)

    async def stop(self, app: str) -> None:
        """No version runs any more; the history stays. Raises NotFoundError."""

        def operation(connection: Connection) -> None:
            query = "UPDATE apps SET current = NULL WHERE name = ?"
            if not connection.execute(query, (app,)).rowcount:
                raise NotFoundError(f"no app {app!r} is deployed")

        await self._database.write(operation, full=True)

    async def current(self, app: str) -> Deployment:
        """The version that runs. Raises NotFoundError."""
        rows = await self._select("app = ? AND version = current", app)
        if not rows:
            raise NotFoundError(f"no app {app!r} is deployed")
        return _deployment(rows[0])

    async def before_current(self, app: str) -> int:
        """The number of the version before the one that runs. Raises NotFoundError."""
        query = (
            "SELECT max(version) FROM deployments "
            "WHERE app = ? AND version < (SELECT current FROM apps WHERE name = ?)"
        )
        row = await self._database.read(lambda c: c.execute(query, (app, app)).fetchone())
        if row[0] is None:
            raise NotFoundError(f"the app {app!r} has no version before the one that runs")
        return int(row[0])

    async def versions(self) -> dict[str, int]:
        """The number of the version that runs, by app."""
        query = "SELECT name, current FROM apps WHERE current IS NOT NULL"
        return dict(await self._database.read(lambda c: c.execute(query).fetchall()))

    async def running(self) -> list[Deployment]:
        """The current version of each app that is not stopped."""
        return [_deployment(row) for row in await self._select("version = current")]

    async def history(self, app: str) -> list[Deployment]:
        """All versions of an app, the newest first; stopped or not."""
        return [_deployment(row) for row in await self._select("app = ?", app)]

    async def latest(self) -> list[Deployment]:
        """Of each app the version that runs, or the newest of a stopped one."""
        return [
            _deployment(row)
            for row in await self._select(
                "version = coalesce(current, (SELECT max(version) FROM deployments WHERE app = name))"
            )
        ]

    async def find(self, app: str, version: int) -> Deployment:
        """Raises NotFoundError."""
        rows = await self._select("app = ? AND version = ?", app, version)
        if not rows:
            raise NotFoundError(f"the app {app!r} has no version {version}")
        return _deployment(rows[0])

    async def _select(self, where: str, *values: str | int) -> list[Row]:
        query = (
            "SELECT app, version, specs, created, note, version IS current "
            f"FROM deployments JOIN apps ON app = name WHERE {where} ORDER BY app, version DESC"
        )
        return await self._database.read(lambda c: c.execute(query, values).fetchall())


def _add(connection: Connection, app: str, specs: str, note: str, now: float) -> int:
    query = "SELECT coalesce(max(version), 0) + 1 FROM deployments WHERE app = ?"
    version = int(connection.execute(query, (app,)).fetchone()[0])
    connection.execute(
        "INSERT INTO deployments (app, version, specs, note, created) VALUES (?, ?, ?, ?, ?)",
        (app, version, specs, note, now),
    )
    connection.execute(
        "INSERT INTO apps (name, current) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET current = excluded.current",
        (app, version),
    )
    return version


def _deployment(row: Row) -> Deployment:
    app, version, text, created, note, current = row
    try:
        specs = tuple(codec.from_plain(FunctionSpec, plain) for plain in json.loads(text))
    except InvalidError as error:
        raise StateError(
            f"version {version} of the app {app!r} cannot be read: {error}. Deploy it again."
        ) from error
    return Deployment(app, version, specs, created, note, bool(current))
