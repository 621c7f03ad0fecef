"""The operations of `Queue`: items in order, who waits for them, and partitions that expire.

Those who wait for one partition stand in a line: its head alone looks and is woken, so a put costs
one look, however many wait. A put in this engine wakes by event; one by another process of the same
home (`minimodal up` beside a script) is seen within `ELSEWHERE` seconds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import TypeVar

import anyio

from minimodal import parts
from minimodal.errors import InvalidError, ResourceExhaustedError
from minimodal.protocols import Reply
from minimodal.shared_queue import MAX_ITEM_BYTES, MAX_ITEMS, MAX_PARTITION_NAME, MAX_TTL
from minimodal.types import Payload

from .batch import Connection
from .object_store import PACKING_BYTES, PAGE_BYTES, NamedOps, ObjectStore, require
from .ops import Caller, Fields, Ops

Key = tuple[str, str]  # queue, partition
Rows = list[tuple[int, bytes]]  # order, item
Waiting = Callable[[str | None], AbstractContextManager[None]]
T = TypeVar("T")

ELSEWHERE = 1.0  # seconds
MAX_PARTITIONS = 100_000  # of one queue
MAX_GIVEN = 256  # answers that can be taken back, because they crossed with a cancel
MAX_GIVEN_BYTES = 4 << 20  # of one such answer
PAGE_ITEMS = 1_000


class _Line:
    """Those who wait for one change of one partition, first come first served."""

    def __init__(self) -> None:
        self.turn = anyio.Lock()  # anyio's is fair
        self.changed = anyio.Event()
        self.length = 0


class Queues:
    """Handlers over one store. `waiting`: a block in which a call's user code waits."""

    def __init__(self, ops: Ops, store: ObjectStore, waiting: Waiting) -> None:
        self._store = store
        self._waiting = waiting
        self._lines: dict[tuple[str, Key], _Line] = {}
        self._given: dict[str, tuple[Key, Rows]] = {}  # by ticket; the last ones
        NamedOps(ops, "queue", store)
        for name in ("put", "get", "give_back", "page", "len", "clear"):
            ops.add(f"queue.{name}", getattr(self, f"_{name}"))

    async def _put(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        items = [bytes(part) for part in parts.split(payload.data)]
        if len(items) > MAX_ITEMS or any(len(i) > MAX_ITEM_BYTES + PACKING_BYTES for i in items):
            raise ResourceExhaustedError("more items, or a larger one, than a Queue takes")
        ttl = min(max(float(fields["ttl"]), 0.0), MAX_TTL)
        key = _key(fields)
        put = partial(self._store.write, partial(self._put_items, key, items, ttl))
        done = await self._when("room", key, fields, put)
        if done:
            self._wake("items", key)
        return Reply({"full": not done})

    async def _get(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        key, count = _key(fields), min(max(int(fields["count"]), 1), MAX_ITEMS)
        take = partial(self._take, key, count)
        rows = await self._when("items", key, fields, take)
        if rows:
            self._wake("room", key)
            self._remember(str(fields.get("ticket") or ""), key, rows)
        return Reply({}, Payload(parts.join([item for _, item in rows or ()])))

    def _remember(self, ticket: str, key: Key, rows: Rows) -> None:
        if ticket and sum(len(item) for _, item in rows) <= MAX_GIVEN_BYTES:
            self._given[ticket] = key, rows
            if len(self._given) > MAX_GIVEN:
                del self._given[next(iter(self._given))]

    async def _give_back(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Who asked gave up while the answer was on its way to them."""
        key, rows = self._given.pop(fields["ticket"], (("", ""), []))
        if rows and key[0] == fields["id"]:
            await self._store.write(partial(_put_back, key, rows))
            self._wake("items", key)
        return Reply({})

    async def _page(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        key, after = _key(fields), int(fields["after"])
        look = partial(self._store.write, lambda c: self._items_after(c, key, after))
        rows = await self._when("items", key, fields, look, alone=False) or []
        last = rows[-1][0] if rows else after
        return Reply({"last": last}, Payload(parts.join([item for _, item in rows])))

    async def _len(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        key, total = _key(fields), bool(fields.get("total"))

        def count(connection: Connection) -> int:
            self._expire(connection, key[0])
            where, values = _where(key, total)
            query = f"SELECT count(*) FROM items WHERE {where}"
            return int(connection.execute(query, values).fetchone()[0])

        return Reply({"count": await self._store.write(count)})

    async def _clear(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        key, everything = _key(fields), bool(fields.get("all"))

        def clear(connection: Connection) -> None:
            self._expire(connection, key[0])
            where, values = _where(key, everything)
            for table in ("items", "partitions"):
                connection.execute(f"DELETE FROM {table} WHERE {where}", values)

        await self._store.write(clear)
        for kind, other in list(self._lines):
            if kind == "room" and other[0] == key[0]:
                self._wake("room", other)
        return Reply({})

    # --- waiting -----------------------------------------------------------------------------------

    async def _when(
        self,
        change: str,
        key: Key,
        fields: Fields,
        attempt: Callable[[], Awaitable[T]],
        alone: bool = True,
    ) -> T | None:
        """The result of `attempt` once it is something; None when `timeout` is over.

        `alone`: what one takes the next cannot have, so they stand in a line.
        """
        timeout = fields.get("timeout")
        if (change, key) not in self._lines or timeout == 0:
            result = await attempt()
            if result or timeout == 0:
                return result or None
        with anyio.move_on_after(timeout), self._waiting(fields.get("parent")):
            async with self._line(change, key) as line:
                if not alone:
                    return await self._attempts(line, attempt)
                async with line.turn:
                    return await self._attempts(line, attempt)
        return None

    async def _attempts(self, line: _Line, attempt: Callable[[], Awaitable[T]]) -> T:
        while True:
            changed = line.changed
            # A timeout in the middle must not lose what was taken: the store undoes it.
            result = await attempt()
            if result:
                return result
            with anyio.move_on_after(ELSEWHERE):
                await changed.wait()

    @asynccontextmanager
    async def _line(self, change: str, key: Key) -> AsyncIterator[_Line]:
        line = self._lines.setdefault((change, key), _Line())
        line.length += 1
        try:
            yield line
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[(change, key)]

    def _wake(self, change: str, key: Key) -> None:
        line = self._lines.get((change, key))
        if line is not None:
            line.changed.set()
            line.changed = anyio.Event()

    # --- in a transaction --------------------------------------------------------------------------

    def _put_items(self, key: Key, items: list[bytes], ttl: float, connection: Connection) -> bool:
        self._expire(connection, key[0])
        query = "SELECT count(*) FROM items WHERE object = ? AND part = ?"
        (count,) = connection.execute(query, key).fetchone()
        if count + len(items) > MAX_ITEMS:
            return False
        if not count:
            self._check_partitions(connection, key)
        rows = [(*key, item) for item in items]
        connection.executemany("INSERT INTO items (object, part, item) VALUES (?, ?, ?)", rows)
        row = (*key, self._store.clock.now() + ttl)
        connection.execute("INSERT OR REPLACE INTO partitions VALUES (?, ?, ?)", row)
        return True

    @staticmethod
    def _check_partitions(connection: Connection, key: Key) -> None:
        query = "SELECT count(*) FROM partitions WHERE object = ?"
        if connection.execute(query, key[:1]).fetchone()[0] >= MAX_PARTITIONS:
            raise ResourceExhaustedError(f"a Queue has {MAX_PARTITIONS} partitions at most")

    async def _take(self, key: Key, count: int) -> Rows:
        def take(connection: Connection) -> Rows:
            self._expire(connection, key[0])
            query = "SELECT seq, item FROM items WHERE object = ? AND part = ? ORDER BY seq LIMIT ?"
            rows: Rows = connection.execute(query, (*key, count)).fetchall()
            connection.executemany("DELETE FROM items WHERE seq = ?", [row[:1] for row in rows])
            return rows

        return await self._store.write(take, partial(partial, _put_back, key))

    def _items_after(self, connection: Connection, key: Key, after: int) -> Rows:
        self._expire(connection, key[0])
        query = "SELECT seq, item FROM items WHERE object = ? AND part = ? AND seq > ? ORDER BY seq"
        rows: Rows = []
        size = 0
        for seq, item in connection.execute(f"{query} LIMIT {PAGE_ITEMS}", (*key, after)):
            rows.append((seq, item))
            size += len(item)
            if size >= PAGE_BYTES:
                break
        return rows

    def _expire(self, connection: Connection, queue: str) -> None:
        """Clear the partitions of a queue whose time is over."""
        require(connection, "queue", queue)
        query = "SELECT object, part FROM partitions WHERE object = ? AND expires <= ?"
        over = connection.execute(query, (queue, self._store.clock.now())).fetchall()
        for table in ("items", "partitions") if over else ():
            connection.executemany(f"DELETE FROM {table} WHERE object = ? AND part = ?", over)


def _put_back(key: Key, rows: Rows, connection: Connection) -> None:
    """To the front, where they were."""
    back = [(seq, *key, item) for seq, item in rows]
    connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?, ?)", back)


def _key(fields: Fields) -> Key:
    part = fields.get("partition") or ""
    if not isinstance(part, str) or len(part.encode()) > MAX_PARTITION_NAME:
        raise InvalidError(f"{part!r} cannot be a queue's partition")
    return str(fields["id"]), part


def _where(key: Key, everything: bool) -> tuple[str, tuple[str, ...]]:
    return ("object = ?", key[:1]) if everything else ("object = ? AND part = ?", key)
