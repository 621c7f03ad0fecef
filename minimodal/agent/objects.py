"""A class in its container: the one instance there, its hooks and its methods.

The instance is made, and `@enter(snap=True)` runs, in the zygote: every executor is a fork of it and
starts with what they prepared. The other hooks run in each executor.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from minimodal import pickling
from minimodal.cls import Cls, adopt
from minimodal.errors import NotFoundError
from minimodal.kinds import is_async
from minimodal.methods import hooks_of, methods_of
from minimodal.options import Options
from minimodal.types import Payload

from .target import Start, Target


class ObjectTarget(Target):
    """`found` is the Cls that the user's module made, or the user's class itself if it came by value."""

    def __init__(self, found: Any, start: Start) -> None:
        name = start.fields["function"]
        cls = found if isinstance(found, Cls) else Cls(found, None, name, Options())
        self.is_batched = start.is_batched
        self._name = name
        self._instance = adopt(cls, start.fields["key"], _arguments(start))._local()
        self._methods = methods_of(type(self._instance))
        for hook in self._hooks("enter", snap=True):
            value = hook()
            if isinstance(value, CoroutineType):
                import asyncio  # half of a cold start

                asyncio.run(value)

    def enter(self) -> list[Callable[[], Any]]:
        return self._hooks("enter")

    def leave(self) -> list[Callable[[], Any]]:
        return self._hooks("exit")

    def _hooks(self, kind: str, snap: bool = False) -> list[Callable[[], Any]]:
        names = hooks_of(type(self._instance), kind, snap)
        return [getattr(self._instance, name) for name in names]

    def callable(self, method: str) -> Callable[..., Any]:
        found = self._methods.get(method)
        if found is None:
            known = ", ".join(self._methods)
            raise NotFoundError(f"{self._name} has no method {method!r}; it has {known}")
        bound: Callable[..., Any] = found.raw.__get__(self._instance)
        return bound

    @property
    def wants_loop(self) -> bool:
        methods = [each.raw for each in self._methods.values()]
        return any(map(is_async, (*methods, *self.enter(), *self.leave())))


def _arguments(start: Start) -> tuple[tuple[Any, ...], dict[str, Any]]:
    data, *buffers = start.payload.buffers
    if not memoryview(data).nbytes:
        return (), {}
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = pickling.loads(
        Payload(data, tuple(buffers)), "a constructor argument"
    )
    return arguments
