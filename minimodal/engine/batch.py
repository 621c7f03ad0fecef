"""One transaction's worth of writes: applied together, answered one by one.

Owns the order inside a transaction and what happens when one of its writes is wrong. Rows of one
kind go to SQLite many at a time, because each statement gives the GIL away and must win it back:
measured with the loop saturated, 1,650 writes a second one by one, and 19,000 in rows.
(Writes in one batch were all unanswered when it began, so any order of them is a right one.)
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from minimodal.failpoints import FailpointError

Connection = sqlite3.Connection
T = TypeVar("T")
Operation = Callable[[Connection], T]
Row = tuple[Any, ...]

MAX_VARIABLES = 999  # of one statement; newer SQLites allow more


class Kind(NamedTuple):
    """A temporary view, `columns` wide after its row number, whose trigger makes the change.

    The trigger puts the number of a row that changed nothing into the temporary table `late`.
    """

    view: str
    columns: int


class Write:
    """A queued write and its waiter: an operation, or rows of a kind."""

    __slots__ = ("abandoned", "done", "error", "full", "kind", "result", "skipped", "work")

    def __init__(
        self,
        kind: Kind | None,
        work: Operation[Any] | Sequence[Row],
        full: bool,
        done: asyncio.Future[None],
    ) -> None:
        self.kind = kind
        self.work = work
        self.full = full
        self.done = done
        self.result: Any = None
        self.error: Exception | None = None
        self.abandoned = False  # set by the waiter that was cancelled
        self.skipped = False  # set by the thread that saw it in time


def apply(connection: Connection, batch: Sequence[Write]) -> None:
    """Run the writes in the open transaction; on return it may be another one, still open.

    A write that is wrong in itself gets its error, and the others run again without it. Raises what
    the disk says (sqlite3.Error, OSError): then nothing of the batch counts.
    """
    together = True
    while True:
        try:
            for group in _groups(batch, together):
                _apply_group(connection, group)
            return
        except _Wrong as wrong:
            if len(wrong.group) == 1:
                wrong.group[0].error = wrong.error
            together = False  # and now find out which one it is
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")


class _Wrong(Exception):
    def __init__(self, group: Sequence[Write], error: Exception) -> None:
        super().__init__(str(error))
        self.group = group
        self.error = error


def _groups(batch: Sequence[Write], together: bool) -> list[list[Write]]:
    groups: dict[Any, list[Write]] = {}
    for number, write in enumerate(batch):
        write.skipped = write.skipped or (write.abandoned and not write.error)
        if not write.skipped and not write.error:
            key = write.kind if write.kind and together else number
            groups.setdefault(key, []).append(write)
    return list(groups.values())


def _apply_group(connection: Connection, group: list[Write]) -> None:
    kind, work = group[0].kind, group[0].work
    try:
        if kind:
            _apply_rows(connection, kind, group)
        else:
            assert callable(work)
            result = work(connection)
            # A cursor that is freed on the waiter's thread resets a statement that this one may be
            # running: "bad parameter or other API misuse", in whoever runs it.
            group[0].result = None if isinstance(result, sqlite3.Cursor) else result
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
        raise _Wrong(group, error) from error
    except (sqlite3.Error, FailpointError, OSError):
        raise  # the disk's fault, not this write's
    except Exception as error:
        raise _Wrong(group, error) from error


def _apply_rows(connection: Connection, kind: Kind, group: list[Write]) -> None:
    rows = [row for write in group for row in _rows(write)]
    flat = [value for number, row in enumerate(rows) for value in (number, *row)]
    width = kind.columns + 1
    position = 0
    for size in (MAX_VARIABLES // width, 8, 1):  # few sizes: their statements stay prepared
        while len(rows) - position >= size:
            values = flat[position * width : (position + size) * width]
            connection.execute(_statement(kind, size), values)
            position += size
    late = {number for (number,) in connection.execute("SELECT n FROM late").fetchall()}
    if late:
        connection.execute("DELETE FROM late")
    number = 0
    for write in group:
        count = len(_rows(write))
        write.result = [n not in late for n in range(number, number + count)]
        number += count


def _rows(write: Write) -> Sequence[Row]:
    assert not callable(write.work)
    return write.work


@functools.cache
def _statement(kind: Kind, size: int) -> str:
    row = f"({', '.join('?' * (kind.columns + 1))})"
    return f"INSERT INTO {kind.view} VALUES {', '.join([row] * size)}"
