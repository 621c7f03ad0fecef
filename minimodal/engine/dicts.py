"""The operations of `Dict`: entries by the digest of their key; values are bytes, never looked into."""

from __future__ import annotations

from typing import Any

from minimodal import parts
from minimodal.errors import InvalidError, ResourceExhaustedError
from minimodal.protocols import Reply
from minimodal.shared import MAX_KEY_BYTES, MAX_UPDATE, MAX_VALUE_BYTES
from minimodal.types import Payload

from .batch import Connection
from .object_store import PACKING_BYTES, PAGE_BYTES, NamedOps, ObjectStore, require
from .ops import Caller, Fields, Ops

PAGE_ENTRIES = 1_000
_COLUMNS = {"keys": ("key",), "values": ("value",), "items": ("key", "value")}


class Dicts:
    """Handlers over one store."""

    def __init__(self, ops: Ops, store: ObjectStore) -> None:
        self._store = store
        NamedOps(ops, "dict", store)
        for name in ("get", "contains", "len", "page", "put", "pop", "clear"):
            ops.add(f"dict.{name}", getattr(self, f"_{name}"))

    async def _get(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        row = await self._store.read(lambda c: _find(c, fields["id"], payload, "value"))
        return Reply({"found": False}) if row is None else Reply({"found": True}, Payload(row[0]))

    async def _contains(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        row = await self._store.read(lambda c: _find(c, fields["id"], payload, "1"))
        return Reply({"found": row is not None})

    async def _len(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        def count(connection: Connection) -> int:
            require(connection, "dict", fields["id"])
            query = "SELECT count(*) FROM entries WHERE object = ?"
            return int(connection.execute(query, (fields["id"],)).fetchone()[0])

        return Reply({"count": await self._store.read(count)})

    async def _page(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        columns = _COLUMNS.get(fields["what"])
        if columns is None:
            raise InvalidError(f"a Dict has keys, values and items, not {fields['what']!r}")

        def page(connection: Connection) -> tuple[list[bytes], int, bool]:
            require(connection, "dict", fields["id"])
            query = (
                f"SELECT seq, {', '.join(columns)} FROM entries WHERE object = ? AND seq > ? "
                "ORDER BY seq LIMIT ?"
            )
            found: list[bytes] = []
            last, size, count = int(fields["after"]), 0, 0
            for seq, *row in connection.execute(query, (fields["id"], last, PAGE_ENTRIES)):
                found += row
                last, size, count = seq, size + sum(map(len, row)), count + 1
                if size >= PAGE_BYTES:
                    return found, last, True
            return found, last, count == PAGE_ENTRIES

        found, last, more = await self._store.read(page)
        return Reply({"last": last, "more": more}, Payload(parts.join(found)))

    async def _put(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        given = parts.split(payload.data)
        entries = list(zip(given[::3], given[1::3], given[2::3], strict=True))
        if len(entries) > MAX_UPDATE:
            raise ResourceExhaustedError(f"a Dict takes {MAX_UPDATE} entries at once")
        for digest, key, value in entries:
            _check(digest)
            if len(key) > MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES + PACKING_BYTES:
                raise ResourceExhaustedError("a key or value is larger than a Dict takes")
        rows = [(fields["id"], bytes(d), bytes(k), bytes(v)) for d, k, v in entries]
        conflict = "NOTHING" if fields.get("skip") else "UPDATE SET value = excluded.value"

        def put(connection: Connection) -> bool:
            require(connection, "dict", fields["id"])
            changed = connection.executemany(
                "INSERT INTO entries (object, digest, key, value) VALUES (?, ?, ?, ?) "
                f"ON CONFLICT (object, digest) DO {conflict}",
                rows,
            ).rowcount
            return changed > 0

        return Reply({"written": await self._store.write(put)})

    async def _pop(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        def pop(connection: Connection) -> Any:
            row = _find(connection, fields["id"], payload, "seq, key, value")
            if row is not None:
                connection.execute("DELETE FROM entries WHERE seq = ?", (row[0],))
            return row

        def undo(row: Any) -> Any:
            """The caller gave up meanwhile: back to its place, unless somebody put a new one."""
            query = "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?)"

            def put_back(connection: Connection) -> None:
                if row is not None:
                    values = (row[0], fields["id"], bytes(payload.data), row[1], row[2])
                    connection.execute(query, values)

            return put_back

        row = await self._store.write(pop, undo)
        return Reply({"found": False}) if row is None else Reply({"found": True}, Payload(row[2]))

    async def _clear(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        def clear(connection: Connection) -> None:
            require(connection, "dict", fields["id"])
            connection.execute("DELETE FROM entries WHERE object = ?", (fields["id"],))

        await self._store.write(clear)
        return Reply({})


def _find(connection: Connection, object_id: str, payload: Payload, columns: str) -> Any:
    digest = bytes(payload.data)
    _check(digest)
    require(connection, "dict", object_id)
    query = f"SELECT {columns} FROM entries WHERE object = ? AND digest = ?"
    return connection.execute(query, (object_id, digest)).fetchone()


def _check(digest: bytes | memoryview) -> None:
    if len(digest) != 32:
        raise InvalidError("a key's digest has 32 bytes")
