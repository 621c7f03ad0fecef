"""`Queue`: first in, first out, between functions and this machine's scripts.

Pickling happens here, in the caller's thread; the engine keeps bytes, and wakes who waits.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from typing import Any, ClassVar

from . import context, parts, pickling
from .errors import InvalidError, ResourceExhaustedError
from .face import BothIterator, both
from .named import EmptyObjectsOf, Handle
from .types import EMPTY, Payload, new_id

MAX_ITEM_BYTES = 1 << 20
MAX_ITEMS = 5_000  # of one partition
MAX_PARTITION_NAME = 64
DAY = 24 * 3600
MAX_TTL = 7 * DAY


class Queue(Handle):
    """A persistent queue: `Queue.from_name("jobs", create_if_missing=True)`.

    A `partition` is a queue of its own within it, of up to 5,000 items of up to 1 MiB; it is cleared
    `partition_ttl` seconds after the last put. Each item is given to one getter only.
    """

    _kind: ClassVar[str] = "queue"
    objects: ClassVar[EmptyObjectsOf] = EmptyObjectsOf()

    # --- putting -----------------------------------------------------------------------------------

    @both
    async def put(
        self,
        /,
        v: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = DAY,
    ) -> None:
        """Add the item `v` at the end.

        On a full partition it waits for room, at most `timeout` seconds, and raises `queue.Full`
        then, or at once without `block`. Raises ResourceExhaustedError for an item over 1 MiB.
        """
        await self._put([v], block, timeout, partition, partition_ttl)

    @both
    async def put_many(
        self,
        /,
        vs: Sequence[Any],
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
        partition_ttl: int = DAY,
    ) -> None:
        """Add the items `vs` at once, all or none; else as `put`."""
        await self._put(list(vs), block, timeout, partition, partition_ttl)

    # --- getting -----------------------------------------------------------------------------------

    @both
    async def get(
        self,
        /,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
    ) -> Any:
        """Take the first item, waiting for one at most `timeout` seconds.

        Raises `queue.Empty` then. Without `block` an empty queue gives None.
        """
        found = await self._get(1, block, timeout, partition)
        return found[0] if found else None

    @both
    async def get_many(
        self,
        /,
        n_values: int,
        block: bool = True,
        timeout: float | None = None,
        *,
        partition: str | None = None,
    ) -> list[Any]:
        """Take up to `n_values` items: as soon as there is one, those that are there.

        Raises `queue.Empty` after `timeout` seconds. Without `block` an empty queue gives [].
        """
        if n_values < 1:
            raise InvalidError(f"Queue.get_many(n_values) must be at least 1, not {n_values}")
        return await self._get(n_values, block, timeout, partition)

    def iterate(
        self, *, partition: str | None = None, item_poll_timeout: float = 0.0
    ) -> BothIterator[Any]:
        """The items, first to last, without taking them; for `for` and `async for`.

        Ends when no further item came for `item_poll_timeout` seconds.
        """
        reader = _Reader(self, _checked(partition), item_poll_timeout)
        return BothIterator(reader.advance, reader.close)

    @both
    async def len(self, /, *, partition: str | None = None, total: bool = False) -> int:
        """How many items are in the partition, or with `total` in all of them."""
        if partition is not None and total:
            raise InvalidError("Queue.len: give a partition or total=True, not both")
        reply = await self._ask("len", partition=_checked(partition), total=total)
        return int(reply.fields["count"])

    @both
    async def clear(self, /, *, partition: str | None = None, all: bool = False) -> None:
        """Remove the items of the partition, or with `all` of all of them."""
        if partition is not None and all:
            raise InvalidError("Queue.clear: give a partition or all=True, not both")
        await self._ask("clear", partition=_checked(partition), all=all)

    # --- both faces --------------------------------------------------------------------------------

    async def _put(
        self,
        values: list[Any],
        block: bool,
        timeout: float | None,
        partition: str | None,
        partition_ttl: float,
    ) -> None:
        if not 0 < partition_ttl <= MAX_TTL:
            raise InvalidError(
                f"Queue: partition_ttl must be 1 to {MAX_TTL} s, not {partition_ttl}"
            )
        if len(values) > MAX_ITEMS:
            raise ResourceExhaustedError(
                f"Queue.put_many was given {len(values)} items; a partition holds {MAX_ITEMS}"
            )
        if not values:
            return
        reply = await self._ask(
            "put",
            Payload(parts.join([_packed(value) for value in values])),
            partition=_checked(partition),
            ttl=partition_ttl,
            timeout=timeout if block else 0,
        )
        if reply.fields["full"]:
            where = f"partition {partition!r} of {self!r}" if partition else repr(self)
            raise queue.Full(f"{where} holds {MAX_ITEMS} items at most")

    async def _get(
        self, count: int, block: bool, timeout: float | None, partition: str | None
    ) -> list[Any]:
        ticket = new_id("tk")
        asked = {"partition": _checked(partition), "count": count, "ticket": ticket}
        try:
            reply = await self._ask("get", timeout=timeout if block else 0, **asked)
        except BaseException as error:
            if not isinstance(error, Exception):
                self._give_back(ticket)
            raise
        found = [_value_of(part) for part in parts.split(reply.payload.data)]
        if not found and block:
            raise queue.Empty(f"{self!r} had no item for {timeout} s")
        return found

    def _give_back(self, ticket: str) -> None:
        """Cancelled, or Ctrl-C: the answer may be on its way, with items that nobody would see.

        Awaits nothing: in a cancelled task it could not.
        """
        known = self._id or (self._resolved[1] if self._resolved else None)
        if known is not None:
            fields = {"id": known, "ticket": ticket}
            context.get_client().ask("queue.give_back", fields, EMPTY, lambda _: None)


class _Reader:
    def __init__(self, shared: Queue, partition: str, poll: float) -> None:
        self._queue, self._partition, self._poll = shared, partition, poll
        self._after = 0
        self._page: list[memoryview] = []

    async def advance(self) -> Any:
        if not self._page:
            reply = await self._queue._ask(
                "page", partition=self._partition, after=self._after, timeout=self._poll
            )
            self._after = reply.fields["last"]
            self._page = parts.split(reply.payload.data)[::-1]
            if not self._page:
                raise StopAsyncIteration
        return _value_of(self._page.pop())

    async def close(self) -> None:
        """Nothing is open."""


def _checked(partition: str | None) -> str:
    """The partition's name; "" is the default one."""
    if partition is None:
        return ""
    if not isinstance(partition, str) or not 0 < len(partition.encode()) <= MAX_PARTITION_NAME:
        raise InvalidError(
            f"{partition!r} cannot be a queue's partition: a text of 1 to {MAX_PARTITION_NAME} bytes"
        )
    return partition


def _packed(value: Any) -> bytes:
    payload = pickling.dumps(value, "the item of a Queue")
    if payload.nbytes > MAX_ITEM_BYTES:
        raise ResourceExhaustedError(
            f"an item of {payload.nbytes} bytes pickled; the limit of a Queue is {MAX_ITEM_BYTES}. "
            "Put large data in a Volume or a Dict, and its name here."
        )
    return parts.pack(payload)


def _value_of(part: memoryview) -> Any:
    return pickling.loads(parts.unpack(part), "an item of a Queue")
