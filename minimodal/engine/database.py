"""The database: one writing thread with group commit, one reading connection.

Owns the connections; with schema.py and batch.py the only importer of sqlite3. It knows nothing of
calls: a write is a function of a connection, or rows of a kind, in one transaction with all that was
queued while the last one ran, and its waiter wakes when that transaction is committed.

Why not aiosqlite: measured, a lone durable write takes 0.2 ms here and 0.6 ms there (one hop between
threads in place of three), and a batch of mixed writes, each with its own answer, would be a hop for
each. With 64 writers at once and an idle loop both commit over 25,000 a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread

from minimodal.errors import StateError
from minimodal.failpoints import FailpointError, failpoint

from . import schema
from .batch import Kind, Operation, Row, Write, apply
from .breath import Breath
from .trouble import DiskFailure, Fatal, in_words

T = TypeVar("T")

MAX_BATCH = 2_000  # writes in one transaction: bounds how long the next one waits
MAX_FAILURES = 3  # failed transactions in a row after which the engine must stop
CHECK_INTERVAL = 5.0  # seconds between two looks at the file by `watch`


class Database:
    """Made by `open_database`. All methods are for the loop that opened it."""

    def __init__(self, path: Path, wait: float) -> None:
        self.path = path
        self.wait = wait
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="minimodal-store", daemon=True)
        self._reading = anyio.CapacityLimiter(1)
        self._reader_free = threading.Lock()
        self._broken = anyio.Event()
        self._why: StateError | None = None
        self._closed = False
        self._failures = 0
        self._full = False
        self._breath = Breath(self._loop)
        self.commits = 0  # transactions so far, for tests and metrics

    async def write(
        self,
        operation: Operation[T],
        *,
        full: bool = False,
        undo: Callable[[T], Operation[Any]] | None = None,
    ) -> T:
        """Run `operation` in the next transaction and return its result once that is committed.

        It may run twice (after a neighbour in its transaction failed): it has no effect but on the
        connection. `full` waits for the disk. A caller that is cancelled in time has written
        nothing; in the middle of a commit it waits for the end, and `undo(result)` is written too.
        Raises StateError if it was not committed, or what `operation` raised.
        """
        return cast(T, await self._queued(None, operation, full, undo))

    async def write_rows(
        self,
        kind: Kind,
        rows: Sequence[Row],
        *,
        full: bool = False,
        undo: Callable[[list[bool]], Operation[Any]] | None = None,
    ) -> list[bool]:
        """As `write`, for frequent changes: for each row, whether it changed something."""
        return cast(list[bool], await self._queued(kind, rows, full, undo))

    def write_soon(self, operation: Operation[Any], *, limit: int) -> bool:
        """Queue a write that nobody waits for. False: more than `limit` are queued; it is dropped."""
        if self._closed or self._why or self._queue.qsize() >= limit:
            return False
        self._put(Write(None, operation, False, self._loop.create_future()))
        return True

    async def read(self, query: Operation[T]) -> T:
        """Run `query` on a connection of its own, which sees all that is committed."""
        if self._closed:
            raise self._refusal()
        self._breath.add()
        try:
            return await anyio.to_thread.run_sync(self.blocking, query, limiter=self._reading)
        finally:
            self._breath.done()

    async def watch(self) -> None:
        """Raise StateError once the database cannot be relied on: damaged, gone, or replaced.

        The engine runs it beside its services, so that it stops rather than write into the void.
        """
        while not self._why:
            with anyio.move_on_after(CHECK_INTERVAL):
                await self._broken.wait()
            with contextlib.suppress(StateError):
                self._check_identity()
        raise self._refusal()

    # --- the writing thread -----------------------------------------------------------------------

    def start(self, steps: Sequence[str], others: Sequence[str], kinds: str) -> None:
        """Open the file and start the thread (blocking)."""
        with contextlib.ExitStack() as stack, self._wrapped():
            self._connection = schema.open_file(self.path, self.wait, steps, others)
            stack.callback(self._connection.close)
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(kinds)
            self._reader = schema.connect(self.path)
            stack.callback(self._reader.close)
            self._reader.execute("PRAGMA query_only = 1")
            self._reader.execute(f"PRAGMA busy_timeout = {round(self.wait * 1000)}")
            status = os.stat(self.path)
            self._identity = status.st_dev, status.st_ino
            stack.pop_all()
        self._thread.start()

    def _run(self) -> None:
        try:
            while first := self._queue.get():
                batch: list[Write] = [first]
                last = False
                while len(batch) < MAX_BATCH and not self._queue.empty():
                    following = self._queue.get()
                    if following is None:
                        last = True
                        break
                    batch.append(following)
                self._commit(batch)
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    self._loop.call_soon_threadsafe(self._acknowledge, batch)
                del batch, first  # payloads are not kept until the next write comes
                if last:
                    break
        finally:
            failpoint("store.close")
            self._connection.close()

    def _commit(self, batch: list[Write]) -> None:
        """All of the batch, or nothing and an error for each."""
        try:
            with self._wrapped():
                self._check_identity()
                self._synchronous(any(write.full for write in batch))
                schema.patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"), self.wait)
                failpoint("store.commit.begin")
                apply(self._connection, batch)
                failpoint("store.commit.written")
                self._connection.execute("COMMIT")
                self.commits += 1
                self._failures = 0
                failpoint("store.commit.synced")
        except Exception as error:  # whatever it is, no waiter may be left without an answer
            self._roll_back()
            found = error if isinstance(error, StateError) else self._fatal(repr(error))
            for write in batch:
                if not write.error:
                    write.error = StateError(*found.args)
                    write.error.__cause__ = found.__cause__

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _synchronous(self, full: bool) -> None:
        if full != self._full:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._full = full

    def blocking(self, query: Operation[T]) -> T:
        """`read` for those who are on a thread already."""
        with self._reader_free, self._wrapped():
            return query(self._reader)

    # --- errors -----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _wrapped(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, FailpointError, OSError) as error:
            found = in_words(error, self.path, self.wait)
            if isinstance(found, DiskFailure):
                self._failures += 1
            if isinstance(found, Fatal) or self._failures >= MAX_FAILURES:
                self._fatal(found.args[0])
            raise found from error

    def _check_identity(self) -> None:
        """Raise if the path no longer leads to the file that is open. A stat takes 1 µs."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            reason = f"cannot be found: {error.strerror}"
        else:
            if (status.st_dev, status.st_ino) == self._identity:
                return
            reason = "was replaced by another file"
        raise self._fatal(
            f"the database {self.path} {reason}, while this engine had it open. The engine stops "
            "rather than write where nobody would find it."
        )

    def _fatal(self, words: str) -> StateError:
        """Refuse all further writes, and let `watch` end. Called from either thread."""
        if self._why is None:
            self._why = StateError(words)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._broken.set)
        return self._why

    def _refusal(self) -> StateError:
        return StateError(*self._why.args) if self._why else StateError("the store is closed")

    # --- the loop's side --------------------------------------------------------------------------

    async def _queued(
        self,
        kind: Kind | None,
        work: Any,
        full: bool,
        undo: Callable[[Any], Operation[Any]] | None,
    ) -> Any:
        if self._closed or self._why:
            raise self._refusal()
        write = Write(kind, work, full, self._loop.create_future())
        self._put(write)
        try:
            await asyncio.shield(write.done)
        except asyncio.CancelledError:
            write.abandoned = True
            with anyio.CancelScope(shield=True):  # bounded: a transaction waits `wait` at most
                await asyncio.wait([write.done])
                if undo and not write.skipped and not write.error:
                    with contextlib.suppress(Exception):  # the cancellation is what must go out
                        await self.write(undo(write.result))
            raise
        if write.error:
            raise write.error
        return write.result

    def _put(self, write: Write) -> None:
        self._breath.add()
        self._queue.put(write)

    def _acknowledge(self, batch: list[Write]) -> None:
        self._breath.done(len(batch))
        for write in batch:
            if not write.done.done():
                write.done.set_result(None)

    async def aclose(self) -> None:
        """Commit what is queued and close the file. A disk that hangs is left behind after 30 s."""
        self._closed = True
        self._queue.put(None)
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._thread.join, 30.0)
            await anyio.to_thread.run_sync(self._reader.close, limiter=self._reading)


@contextlib.asynccontextmanager
async def open_database(
    path: Path,
    *,
    wait: float = 10.0,
    steps: Sequence[str] | None = None,
    others: Sequence[str] = (),
    kinds: str = "",
) -> AsyncIterator[Database]:
    """Open or create the database.

    `wait`: seconds to wait for a lock of another program. `steps`: migrations, in place of ours.
    `others`: live engines, for people. `kinds`: views and triggers for `write_rows`.
    """
    database = Database(path, wait)
    chosen = schema.migrations() if steps is None else steps
    await anyio.to_thread.run_sync(database.start, chosen, others, kinds)
    try:
        yield database
    finally:
        await database.aclose()
