"""The database of dicts and queues: one file of its own, and the registry of its objects.

Apart from the log of calls, because commands without an engine write it too, and because each may be
damaged, moved or deleted without the other. Opened on first use. An ephemeral object belongs to an
engine; what a dead engine left is removed when the file is opened.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, TypeVar

import anyio
from anyio import to_thread

from minimodal.clock import Clock
from minimodal.engine_lock import is_alive
from minimodal.errors import AlreadyExistsError, InvalidError, NotFoundError
from minimodal.home import Home
from minimodal.named import check_name
from minimodal.protocols import Reply
from minimodal.types import Payload, new_id

from .batch import Connection
from .database import Database, open_database
from .ops import Caller, Fields, Ops

T = TypeVar("T")

PREFIXES = {"dict": "di", "queue": "qu"}
PAGE_BYTES = 8 << 20  # of values in one answer
PACKING_BYTES = 64 * 1024  # what parts.pack adds to a pickle, at most

# One text for each version, applied in order, never edited once released.
STEPS = (
    """
CREATE TABLE objects (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT,                         -- NULL: ephemeral
    engine TEXT NOT NULL,              -- who made it; an ephemeral one ends with it
    created REAL NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX objects_name ON objects (kind, name) WHERE name IS NOT NULL;
CREATE TABLE entries (                 -- of dicts
    seq INTEGER PRIMARY KEY,           -- the order of insertion
    object TEXT NOT NULL,
    digest BLOB NOT NULL,              -- of the key's value
    key BLOB NOT NULL,                 -- parts.pack of its pickle
    value BLOB NOT NULL,
    UNIQUE (object, digest)
);
CREATE INDEX entries_order ON entries (object, seq);
CREATE TABLE items (                   -- of queues
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    object TEXT NOT NULL,
    part TEXT NOT NULL,                -- partition
    item BLOB NOT NULL
);
CREATE INDEX items_order ON items (object, part, seq);
CREATE TABLE partitions (
    object TEXT NOT NULL,
    part TEXT NOT NULL,
    expires REAL NOT NULL,
    PRIMARY KEY (object, part)
) WITHOUT ROWID;
""",
)


class ObjectStore:
    """The database of one home, for one engine."""

    def __init__(self, home: Home, engine: str, clock: Clock) -> None:
        self.engine = engine
        self.clock = clock
        self._home = home
        self._opening = anyio.Lock()
        self._stack = AsyncExitStack()
        self._database: Database | None = None

    async def write(
        self,
        operation: Callable[[Connection], T],
        undo: Callable[[T], Callable[[Connection], Any]] | None = None,
    ) -> T:
        """Run `operation` in a transaction; `undo` takes it back for a caller that gave up."""
        return await (await self._opened()).write(operation, undo=undo)

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await (await self._opened()).read(query)

    async def aclose(self) -> None:
        """Remove the ephemeral objects of this engine and close the file."""
        if self._database is not None:
            with anyio.CancelScope(shield=True), anyio.move_on_after(10):
                await self._database.write(partial(_remove_ephemeral, self.engine))
            await self._stack.aclose()

    async def _opened(self) -> Database:
        if self._database is None:
            async with self._opening:
                if self._database is None:
                    with anyio.CancelScope(shield=True):  # bounded: it waits 10 s for a lock
                        await self._open()
        assert self._database is not None
        return self._database

    async def _open(self) -> None:
        path = self._home.state / "objects.db"
        database = await self._stack.enter_async_context(open_database(path, steps=STEPS))
        owners = await database.read(
            lambda c: c.execute("SELECT DISTINCT engine FROM objects WHERE name IS NULL").fetchall()
        )
        for (engine,) in owners:
            if engine != self.engine and not await to_thread.run_sync(is_alive, self._home, engine):
                await database.write(partial(_remove_ephemeral, engine))
        self._database = database


def require(connection: Connection, kind: str, object_id: str) -> None:
    """Raise NotFoundError where there is no object of that id."""
    row = connection.execute("SELECT kind FROM objects WHERE id = ?", (object_id,)).fetchone()
    if row is None or row[0] != kind:
        raise NotFoundError(
            f"there is no {kind} {object_id}: it was deleted, or its block has ended"
        )


def _remove_ephemeral(engine: str, connection: Connection) -> None:
    query = "SELECT id FROM objects WHERE name IS NULL AND engine = ?"
    for (object_id,) in connection.execute(query, (engine,)).fetchall():
        _remove(connection, object_id)


def _remove(connection: Connection, object_id: str) -> None:
    for table in ("entries", "items", "partitions"):
        connection.execute(f"DELETE FROM {table} WHERE object = ?", (object_id,))
    connection.execute("DELETE FROM objects WHERE id = ?", (object_id,))


class NamedOps:
    """open, create, ephemeral, list, info and remove of one kind."""

    def __init__(self, ops: Ops, kind: str, store: ObjectStore) -> None:
        self._kind = kind
        self._store = store
        for name in ("open", "create", "ephemeral", "list", "info", "remove"):
            ops.add(f"{kind}.{name}", getattr(self, f"_{name}"))

    async def _open(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name = check_name(self._kind, fields["name"])
        found = await self._store.read(lambda c: self._find(c, name))
        if found is None and fields.get("create"):
            found = await self._store.write(lambda c: self._find(c, name) or self._make(c, name))
        if found is None:
            raise NotFoundError(
                f"there is no {self._kind} {name!r}; from_name(…, create_if_missing=True) makes it"
            )
        return Reply({"id": found})

    async def _create(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name = check_name(self._kind, fields["name"])

        def create(connection: Connection) -> str:
            found = self._find(connection, name)
            if found and not fields.get("exist_ok"):
                raise AlreadyExistsError(f"there is a {self._kind} {name!r} already")
            return found or self._make(connection, name)

        return Reply({"id": await self._store.write(create)})

    async def _ephemeral(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"id": await self._store.write(lambda c: self._make(c, None))})

    async def _list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """`items`: how many entries or items each has."""
        table = "entries" if self._kind == "dict" else "items"
        query = (
            f"SELECT id, name, created, (SELECT count(*) FROM {table} WHERE object = id) "
            "FROM objects WHERE kind = ? AND name IS NOT NULL"
        )
        rows = await self._store.read(lambda c: c.execute(query, (self._kind,)).fetchall())
        names = ("id", "name", "created", "items")
        return Reply({"objects": [dict(zip(names, row, strict=True)) for row in rows]})

    async def _info(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        def look(connection: Connection) -> Any:
            require(connection, self._kind, fields["id"])
            query = "SELECT id, name, created FROM objects WHERE id = ?"
            return connection.execute(query, (fields["id"],)).fetchone()

        row = await self._store.read(look)
        return Reply(dict(zip(("id", "name", "created"), row, strict=True)))

    async def _remove(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name, object_id = fields.get("name"), fields.get("id")
        if name is None and object_id is None:
            raise InvalidError(f"which {self._kind}? give a name or an id")

        def remove(connection: Connection) -> None:
            found = object_id if name is None else self._find(connection, name)
            try:
                require(connection, self._kind, found or f"called {name!r}")
            except NotFoundError:
                if fields.get("missing_ok"):
                    return
                raise
            assert found is not None
            _remove(connection, found)

        await self._store.write(remove)
        return Reply({})

    def _find(self, connection: Connection, name: str) -> str | None:
        query = "SELECT id FROM objects WHERE kind = ? AND name = ?"
        row = connection.execute(query, (self._kind, name)).fetchone()
        return str(row[0]) if row else None

    def _make(self, connection: Connection, name: str | None) -> str:
        object_id = new_id(PREFIXES[self._kind])
        row = (object_id, self._kind, name, self._store.engine, self._store.clock.now())
        connection.execute("INSERT INTO objects VALUES (?, ?, ?, ?, ?)", row)
        return object_id
