"""`Dict`: a dictionary that all functions and this machine's scripts share.

Values are copies: a list that was fetched and changed is put back by hand. Pickling happens here, in
the caller's thread; the engine keeps bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from . import parts, pickling
from .errors import ResourceExhaustedError
from .face import BothIterator, block, both
from .named import EmptyObjectsOf, Handle
from .shared_keys import digest_of
from .shared_queue import Queue as Queue
from .types import Payload

MAX_KEY_BYTES = 64 * 1024
MAX_VALUE_BYTES = 100 << 20
MAX_UPDATE = 10_000  # entries of one update()

_NOTHING = object()


class Dict(Handle):
    """A persistent dictionary: `Dict.from_name("results", create_if_missing=True)`.

    Keys are compared by value (see shared_keys.py) and keep the order of their insertion; a value
    has at most 100 MiB. Each method is one atomic operation, also against other containers:
    `put(key, value, skip_if_exists=True)` is how one of many takes a lock.
    """

    _kind: ClassVar[str] = "dict"
    objects: ClassVar[EmptyObjectsOf] = EmptyObjectsOf()

    # --- reading -----------------------------------------------------------------------------------

    @both
    async def get(self, /, key: Any, default: Any = None) -> Any:
        """The value of `key`, or `default`."""
        return await self._get(key, default)

    @both
    async def contains(self, /, key: Any) -> bool:
        """Whether there is an entry for `key`."""
        return await self._contains(key)

    @both
    async def len(self, /) -> int:
        """How many entries there are."""
        return int((await self._ask("len")).fields["count"])

    def keys(self) -> BothIterator[Any]:
        """The keys, for `for` and `async for`; what is changed meanwhile may be seen or not."""
        return self._entries("keys")

    def values(self) -> BothIterator[Any]:
        """The values, as `keys`."""
        return self._entries("values")

    def items(self) -> BothIterator[tuple[Any, Any]]:
        """(key, value) pairs, as `keys`."""
        return self._entries("items")

    def __getitem__(self, key: Any) -> Any:
        return block(self._item(key))

    def __contains__(self, key: Any) -> bool:
        return block(self._contains(key))

    # --- writing -----------------------------------------------------------------------------------

    @both
    async def put(self, /, key: Any, value: Any, *, skip_if_exists: bool = False) -> bool:
        """Set the value of `key`; whether it was written.

        With `skip_if_exists` False means that there was one, which is left as it is. Raises
        ResourceExhaustedError for a key over 64 KiB or a value over 100 MiB.
        """
        return await self._put([(key, value)], skip_if_exists)

    @both
    async def update(self, /, other: Any = (), **kwargs: Any) -> None:
        """Set many entries at once, all or none: those of `other`, a mapping or pairs, and keywords."""
        pairs = list((other.items() if isinstance(other, Mapping) else other) or ())
        pairs += kwargs.items()
        if len(pairs) > MAX_UPDATE:
            raise ResourceExhaustedError(
                f"Dict.update was given {len(pairs)} entries; one call takes {MAX_UPDATE}"
            )
        await self._put(pairs, False)

    @both
    async def pop(self, /, key: Any, default: Any = _NOTHING) -> Any:
        """Remove `key` and return its value. Raises KeyError where there is none and no `default`."""
        return await self._pop(key, default)

    @both
    async def clear(self, /) -> None:
        """Remove all entries."""
        await self._ask("clear")

    def __setitem__(self, key: Any, value: Any) -> None:
        block(self._put([(key, value)], False))

    def __delitem__(self, key: Any) -> None:
        block(self._pop(key, _NOTHING))

    # --- both faces --------------------------------------------------------------------------------

    async def _get(self, key: Any, default: Any) -> Any:
        reply = await self._ask("get", Payload(digest_of(key)))
        if not reply.fields["found"]:
            return default
        return pickling.loads(parts.unpack(reply.payload.data), f"the value of {key!r}")

    async def _item(self, key: Any) -> Any:
        value = await self._get(key, _NOTHING)
        if value is _NOTHING:
            raise KeyError(key)
        return value

    async def _contains(self, key: Any) -> bool:
        return bool((await self._ask("contains", Payload(digest_of(key)))).fields["found"])

    async def _pop(self, key: Any, default: Any) -> Any:
        reply = await self._ask("pop", Payload(digest_of(key)))
        if reply.fields["found"]:
            return pickling.loads(parts.unpack(reply.payload.data), f"the value of {key!r}")
        if default is _NOTHING:
            raise KeyError(key)
        return default

    async def _put(self, pairs: list[tuple[Any, Any]], skip: bool) -> bool:
        packed: list[bytes] = []
        for key, value in pairs:
            packed += (digest_of(key), _packed_key(key), _packed_value(key, value))
        reply = await self._ask("put", Payload(parts.join(packed)), skip=skip)
        return bool(reply.fields["written"])

    def _entries(self, what: str) -> BothIterator[Any]:
        reader = _Reader(self, what)
        return BothIterator(reader.advance, reader.close)


class _Reader:
    """Reads entries in pages, so that a large Dict is never in memory at once."""

    def __init__(self, shared: Dict, what: str) -> None:
        self._dict = shared
        self._what = what
        self._after = 0
        self._page: list[Any] = []
        self._more = True

    async def advance(self) -> Any:
        while not self._page:
            if not self._more:
                raise StopAsyncIteration
            reply = await self._dict._ask("page", after=self._after, what=self._what)
            self._after, self._more = reply.fields["last"], reply.fields["more"]
            values = [
                pickling.loads(parts.unpack(part), "an entry of a Dict")
                for part in parts.split(reply.payload.data)
            ]
            if self._what == "items":
                values = list(zip(values[::2], values[1::2], strict=True))
            self._page = values[::-1]
        return self._page.pop()

    async def close(self) -> None:
        """Nothing is open."""


def _packed_key(key: Any) -> bytes:
    packed = parts.pack(pickling.dumps(key, "the key"))
    if len(packed) > MAX_KEY_BYTES:
        raise ResourceExhaustedError(
            f"the key {repr(key)[:40]}… has {len(packed)} bytes pickled; the limit is {MAX_KEY_BYTES}"
        )
    return packed


def _packed_value(key: Any, value: Any) -> bytes:
    payload = pickling.dumps(value, f"the value of {key!r}")
    if payload.nbytes > MAX_VALUE_BYTES:
        raise ResourceExhaustedError(
            f"the value of {key!r} has {payload.nbytes >> 20} MiB pickled; the limit of a Dict is "
            f"{MAX_VALUE_BYTES >> 20} MiB. Put large data in a Volume and its path here."
        )
    return parts.pack(payload)
