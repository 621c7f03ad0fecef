"""The users' weights and quotas: on record for all engines of a home, and in force in this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from minimodal.errors import InvalidError
from minimodal.protocols import Reply
from minimodal.types import Payload

from .database import Database
from .tenants import Quota, Tenants

if TYPE_CHECKING:
    from .ops import Caller, Fields, Ops


class Quotas:
    """`store.quotas`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> dict[str, Quota]:
        query = "SELECT user, weight, max_running, max_queued FROM quotas ORDER BY user"
        rows = await self._database.read(lambda c: c.execute(query).fetchall())
        return {row[0]: Quota(*row[1:]) for row in rows}

    async def set(self, user: str, quota: Quota) -> None:
        row = (user, quota.weight, quota.max_running, quota.max_queued)
        query = "INSERT OR REPLACE INTO quotas VALUES (?, ?, ?, ?)"
        await self._database.write(lambda c: c.execute(query, row), full=True)

    async def forget(self, user: str) -> bool:
        query = "DELETE FROM quotas WHERE user = ?"
        return await self._database.write(lambda c: c.execute(query, (user,)).rowcount > 0)


class QuotaOps:
    """The operations `user.list`, `user.set` and `user.reset`; without an engine on the record alone."""

    def __init__(
        self,
        ops: Ops,
        quotas: Quotas,
        tenants: Tenants | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._quotas = quotas
        self._tenants = tenants
        self._changed = changed  # somebody may run now who might not before
        ops.add("user.list", self._list)
        ops.add("user.set", self._set)
        ops.add("user.reset", self._reset)

    async def follow(self) -> None:
        """Put in force what is on record: another process may have changed it."""
        if self._tenants is not None and self._tenants.set_all(await self._quotas.all()):
            self._changed()

    async def _list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Users with a quota, and those with calls here, with their counts in this engine."""
        recorded, tenants = await self._quotas.all(), self._tenants or Tenants()
        rows = []
        for user in sorted({*recorded, *tenants.users()}):
            quota = recorded.get(user, tenants.quota(user))
            rows.append(
                {
                    "user": user,
                    "weight": quota.weight,
                    "max_running": quota.max_running,
                    "max_queued": quota.max_queued,
                    "running": tenants.running(user),
                    "queued": tenants.queued(user),
                }
            )
        return Reply({"users": rows})

    async def _set(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Fields: user, weight, max_running, max_queued; a field that is missing keeps its value."""
        user = _own_process(caller, fields)
        before = (await self._quotas.all()).get(user, Quota())
        given = {name: fields[name] for name in Quota.__dataclass_fields__ if name in fields}
        names = {name: getattr(before, name) for name in Quota.__dataclass_fields__}
        await self._quotas.set(user, Quota(**{**names, **given}))
        await self.follow()
        return Reply({})

    async def _reset(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Weight 1 and no quota, as one who was never set."""
        known = await self._quotas.forget(_own_process(caller, fields))
        await self.follow()
        return Reply({"known": known})


def _own_process(caller: Caller, fields: Fields) -> str:
    if caller.session is not None:
        raise InvalidError("quotas cannot be changed from inside a function")
    return str(fields["user"])
