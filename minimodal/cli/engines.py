"""The engines of this home as a command asks them; where none runs, its store is read instead.

Any engine can say what is on record, so one is asked; what runs, each knows of itself alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from .failure import UsageError, nearest
from .parser import load_settings

if TYPE_CHECKING:
    from minimodal.connection import Connection
    from minimodal.engine_lock import EngineInfo
    from minimodal.home import Home
    from minimodal.protocols import Client

ANSWER_WITHIN = 60.0


class Reached(NamedTuple):
    """An engine that answers."""

    info: EngineInfo
    connection: Connection

    @property
    def title(self) -> str:
        return f"{self.info.role} (pid {self.info.pid})"


class Engines:
    """Made by `open_engines`."""

    def __init__(self, home: Home, reached: list[Reached]) -> None:
        self.home = home
        self.reached = reached

    def one(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask `minimodal up`, or the newest other engine, or the store. Raises what the operation does."""
        if self.reached:
            return ask(self.reached[0].connection, op, **fields)
        return self._on_record(op, fields)

    def each(self, op: str, **fields: Any) -> Iterator[tuple[Reached, dict[str, Any]]]:
        """Ask all engines; those that stop meanwhile are left out."""
        from minimodal.errors import CallLost, NotRunningError

        for engine in self.reached:
            try:
                yield engine, ask(engine.connection, op, **fields)
            except (NotRunningError, CallLost):
                continue

    def change(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask `one`; where no engine runs, the operation of that name on what is on record."""
        return self.one(op if self.reached else f"record.{op.partition('.')[2]}", **fields)

    def all_of(self, op: str, name: str, key: str) -> list[dict[str, Any]]:
        """The rows `name` of all engines, each `key` once: as who hosts it says, named in `engine`.

        Where no engine runs, those on record.
        """
        if not self.reached:
            found: list[dict[str, Any]] = self.one(f"record.{name}")[name]
            return found
        rows: dict[str, dict[str, Any]] = {}
        for engine, answer in self.each(op):
            for row in answer[name]:
                known = rows.get(row[key])
                if known is None or (row["hosted"] and not known["hosted"]):
                    rows[row[key]] = row | ({"engine": engine.title} if row["hosted"] else {})
        return list(rows.values())

    def need_one(self) -> Reached:
        if not self.reached:
            raise UsageError(
                "no engine runs in this home.", hint="minimodal up, or minimodal run", code=1
            )
        return self.reached[0]

    def _on_record(self, op: str, fields: dict[str, Any]) -> dict[str, Any]:
        import anyio

        from minimodal.engine.ops import USER, Ops
        from minimodal.engine.quotas import QuotaOps
        from minimodal.engine.record_ops import RecordOps
        from minimodal.engine.store import open_store
        from minimodal.types import EMPTY, new_id

        async def work() -> dict[str, Any]:
            async with open_store(self.home, new_id("en")) as store:
                ops = Ops()
                RecordOps(ops, store)
                QuotaOps(ops, store.quotas)
                if not ops.has(op):
                    self.need_one()
                reply: Any = ops.find(op)(USER, fields, EMPTY)
                return dict((await reply).fields)

        return anyio.run(work)


@contextmanager
def open_engines() -> Iterator[Engines]:
    """Connections to all engines of this home, `minimodal up` first."""
    from minimodal.home import open_home
    from minimodal.lookup import connect, disconnect, other_engines

    home = open_home(load_settings().home)
    reached = []
    for info in other_engines(home):
        connection = connect(home, info)
        if connection is not None:
            reached.append(Reached(info, connection))
    try:
        yield Engines(home, reached)
    finally:
        disconnect()


def ask(client: Client, op: str, *, within: float = ANSWER_WITHIN, **fields: Any) -> dict[str, Any]:
    """Ask and wait, in this thread."""
    from minimodal import context
    from minimodal.face import block

    async def work() -> dict[str, Any]:
        reply = await context.ask(op, client=client, wait=within, **fields)
        return dict(reply.fields)

    return block(work())


def check_known(kind: str, word: str | None, known: list[str]) -> None:
    """Raise UsageError with the nearest name where nothing is called `word`."""
    if word is None or word in known:
        return
    near = nearest(word, known)
    raise UsageError(
        f"there is no {kind} {word!r}.{' There is:' if known and not near else ''}",
        choices=[] if near else sorted(set(known))[:20],
        hint=f"did you mean {near}?" if near else "",
        code=1,
    )
