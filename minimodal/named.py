"""What all named objects share: a lazy handle, its look-up by name or id, its block, its listing.

A handle does no I/O when it is made. It asks for its id on first use and remembers it for the client
that it asked, so that a handle at the top of a module outlives an engine. Handles pickle by name and
id: a container that gets one asks for itself.
"""

from __future__ import annotations

import builtins
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from . import context
from .errors import CallLost, InvalidError, NotRunningError
from .face import BothContext, both

if TYPE_CHECKING:
    from .protocols import Client, Reply

H = TypeVar("H", bound="Handle")

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def check_name(kind: str, name: object) -> str:
    """A name of 1 to 64 letters, digits, `.`, `_` and `-`, other than `.` and `..`."""
    if not isinstance(name, str) or not _NAME.match(name) or name in (".", ".."):
        raise InvalidError(
            f"{name!r} cannot be the name of a {kind}: use 1 to 64 letters, digits, '.', '_', '-'"
        )
    return name


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """A named object in words. `created_at`: seconds since 1970."""

    name: str | None
    object_id: str
    created_at: float


class Handle:
    """One object of the platform, known by its name or its id."""

    _kind: ClassVar[str] = ""  # prefix of its operations, and what messages call it

    _name: str | None
    _create: bool
    _id: str | None
    _resolved: tuple[Client, str] | None

    def __init__(self, *_: Any, **__: Any) -> None:
        name = type(self).__name__
        raise RuntimeError(
            f"{name}(…) is not how one is made: use {name}.from_name('a-name', "
            f"create_if_missing=True) or `with {name}.ephemeral() as …`"
        )

    @classmethod
    def _make(
        cls: type[H], name: str | None = None, *, create: bool = False, object_id: str | None = None
    ) -> H:
        self = cls.__new__(cls)
        self._name, self._create, self._id = name, create, object_id
        self._resolved = None
        return self

    # --- where it comes from -----------------------------------------------------------------------

    @classmethod
    def from_name(
        cls: type[H],
        name: str,
        *,
        create_if_missing: bool = False,
        environment_name: str | None = None,
    ) -> H:
        """The object of that name in this home. Does no I/O.

        Using it raises NotFoundError where there is none, unless `create_if_missing`. Raises
        InvalidError for a name that none can have.
        """
        del environment_name  # one environment on one machine
        return cls._make(check_name(cls._kind, name), create=create_if_missing)

    @classmethod
    def from_id(cls: type[H], object_id: str) -> H:
        """The object of that id, which another process may have made. Does no I/O."""
        if not isinstance(object_id, str) or not object_id:
            raise InvalidError(f"{object_id!r} is no id of a {cls._kind}")
        return cls._make(object_id=object_id)

    @classmethod
    def ephemeral(cls: type[H], *, environment_name: str | None = None) -> Ephemeral[H]:
        """A new object for the length of a block, `with` or `async with`; nobody else finds it."""
        del environment_name
        return Ephemeral(cls)

    # --- who it is ---------------------------------------------------------------------------------

    @property
    def name(self) -> str | None:
        """Its name; None where the handle was made of an id, or it is ephemeral."""
        return self._name

    @property
    def object_id(self) -> str:
        """Its id. Raises InvalidError before the first use; `hydrate()` counts as one."""
        found = self._id or (self._resolved[1] if self._resolved else None)
        if found is None:
            raise InvalidError(f"{self!r} has not been used yet, so its id is not known: hydrate()")
        return found

    @both
    async def hydrate(self, /) -> Any:
        """Look it up now. Returns the handle itself; raises NotFoundError where there is none."""
        await self._resolve()
        return self

    @both
    async def info(self, /) -> ObjectInfo:
        """Its name, id and time of creation."""
        return _info_of((await self._ask("info")).fields)

    async def _resolve(self) -> str:
        if self._id is not None:
            return self._id
        client = context.get_client()
        if self._resolved is None or self._resolved[0] is not client:
            self._resolved = (client, await self._open())
        return self._resolved[1]

    async def _open(self) -> str:
        """Its id at the current client."""
        reply = await context.ask(f"{self._kind}.open", name=self._name, create=self._create)
        return str(reply.fields["id"])

    async def _ask(self, op: str, *payload: Any, **fields: Any) -> Reply:
        return await context.ask(f"{self._kind}.{op}", *payload, id=await self._resolve(), **fields)

    def __reduce__(self) -> Any:
        known = self._id or (self._resolved[1] if self._resolved and not self._name else None)
        return _rebuild, (type(self), self._name, self._create, known, self._extras())

    def _extras(self) -> dict[str, Any]:
        """Attributes that travel with the handle."""
        return {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name or self._id or 'unnamed'}>"

    def _repr_html_(self) -> str:
        from .display import card

        known = self._id or (self._resolved[1] if self._resolved else None)
        return card(type(self).__name__, self._name or "", {"id": known})


def _rebuild(
    kind: type[H], name: str | None, create: bool, object_id: str | None, extras: dict[str, Any]
) -> H:
    handle = kind._make(name, create=create, object_id=object_id)
    for key, value in extras.items():
        setattr(handle, key, value)
    return handle


def _info_of(fields: Any) -> ObjectInfo:
    return ObjectInfo(fields["name"], fields["id"], fields["created"])


class Ephemeral(BothContext[H]):
    """The block of `ephemeral()`; the object is gone behind it."""

    def __init__(self, kind: type[H]) -> None:
        self._type = kind
        self._id: str | None = None

    async def _enter(self) -> H:
        reply = await context.ask(f"{self._type._kind}.ephemeral")
        self._id = str(reply.fields["id"])
        return self._type._make(object_id=self._id)

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await context.ask(f"{self._type._kind}.remove", id=self._id, missing_ok=True)
        except (NotRunningError, CallLost):
            pass  # the engine is gone, and the object with it


class Objects(Generic[H]):
    """`X.objects`: the named objects of one kind in this home."""

    def __init__(self, kind: type[H]) -> None:
        self._type = kind

    @both
    async def list(
        self,
        /,
        *,
        max_objects: int | None = None,
        created_before: float | None = None,
        environment_name: str | None = None,
    ) -> builtins.list[H]:
        """Handles of all that have a name, newest first. `created_before`: seconds since 1970."""
        del environment_name
        infos = await self._infos()
        if created_before is not None:
            infos = [info for info in infos if info.created_at < created_before]
        return [self._handle(info) for info in infos[:max_objects]]

    @both
    async def infos(self, /) -> builtins.list[ObjectInfo]:
        """The same as `list`, as records."""
        return await self._infos()

    @both
    async def delete(
        self, /, name: str, *, allow_missing: bool = False, environment_name: str | None = None
    ) -> None:
        """Remove one and all that is in it. Raises NotFoundError, unless `allow_missing`."""
        del environment_name
        check_name(self._type._kind, name)
        await context.ask(f"{self._type._kind}.remove", name=name, missing_ok=allow_missing)

    async def _infos(self) -> builtins.list[ObjectInfo]:
        reply = await context.ask(f"{self._type._kind}.list")
        found = [_info_of(fields) for fields in reply.fields["objects"]]
        return sorted(found, key=lambda info: (info.created_at, info.object_id), reverse=True)

    def _handle(self, info: ObjectInfo) -> H:
        return self._type._make(info.name, object_id=info.object_id)


class EmptyObjects(Objects[H]):
    """`X.objects` of a kind whose objects start empty."""

    @both
    async def create(
        self, /, name: str, *, allow_existing: bool = False, environment_name: str | None = None
    ) -> None:
        """Make one. Raises AlreadyExistsError, unless `allow_existing`."""
        del environment_name
        check_name(self._type._kind, name)
        await context.ask(f"{self._type._kind}.create", name=name, exist_ok=allow_existing)


class EmptyObjectsOf:
    """Descriptor: gives a class its own `EmptyObjects`."""

    def __get__(self, instance: Any, owner: type[H]) -> EmptyObjects[H]:
        return EmptyObjects(owner)
