"""What stands in the body of a class: `@method`, `@enter`, `@exit`, and how they are found again.

The marked functions stay in the user's class, so inheritance, `super()` and plain calls work as in
any class; what makes a method remote is the object that it is taken from (cls.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
    overload,
)

from .errors import InvalidError

if TYPE_CHECKING:
    from .function import Function

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
L = TypeVar("L", covariant=True)  # what it gives here: R, or a coroutine
F = TypeVar("F", bound="Callable[..., Any]")

HOOK = "__minimodal_hook__"
OBJECT = "__minimodal_object__"  # attribute of an instance: the Obj whose instance it is


class Hook(NamedTuple):
    kind: str  # "enter" or "exit"
    snap: bool = False


class Method(Generic[P, R, L]):
    """A method that can run in a container. Taken from an object it is a Function."""

    def __init__(self, raw: Callable[..., L], is_generator: bool | None = None) -> None:
        generator = inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw)
        self.raw = raw
        self.is_generator = generator if is_generator is None else is_generator
        self.name = raw.__name__
        self.owner = ""
        self.__wrapped__ = raw
        self.__doc__ = raw.__doc__

    def __repr__(self) -> str:
        return f"<method {self.owner}{'.' if self.owner else ''}{self.name}>"

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.owner = name, owner.__name__

    def __get__(self, instance: object, owner: type | None = None) -> Function[P, R, L]:
        if instance is None:
            return self  # type: ignore[return-value]  # of a class: only good for its hint below
        from .cls import object_of

        return object_of(instance)._bind(self)

    def __call__(self, *args: Any, **kwargs: Any) -> L:
        """`Parent.method(self, …)` in a subclass."""
        return self.raw(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self.owner}.{self.name} is a method of a class, so it has no {name!r}. Did you forget "
            f"to make an object? {self.owner}(…).{self.name}.{name}"
        )


class _MethodDecorator:
    """Keeps the user's signature, without `self`."""

    def __init__(self, is_generator: bool | None) -> None:
        self._is_generator = is_generator

    @overload
    def __call__(
        self, raw: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]
    ) -> Method[P, R, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, raw: Callable[Concatenate[Any, P], R]) -> Method[P, R, R]: ...

    def __call__(self, raw: Any) -> Any:
        _require_function("@method", raw)
        if hasattr(raw, HOOK):
            raise InvalidError(f"{raw.__qualname__} has @method and @{getattr(raw, HOOK).kind}")
        return Method(raw, self._is_generator)


def method(_wrong: object = None, /, *, is_generator: bool | None = None) -> _MethodDecorator:
    """Let a method of a class under `@app.cls()` be called with `.remote()`, `.map()`, ….

    Parameters: `is_generator` for a decorated generator, which cannot be recognised as one.
    """
    _require_parentheses("method", _wrong)
    return _MethodDecorator(is_generator)


def enter(_wrong: object = None, /, *, snap: bool = False) -> Callable[[F], F]:
    """Run this method once in each container before its first input; it may be async.

    Several run in the order of the classes, parents first. `snap=True`: it runs once for a
    container before its processes are forked, so that a process that is replaced starts with the
    result; what it opens must survive a fork. What it raises is raised to the callers. The time
    counts against `startup_timeout`.
    """
    _require_parentheses("enter", _wrong)
    return _hook(Hook("enter", snap))


def exit(_wrong: object = None, /) -> Callable[[F], F]:
    """Run this method once in each container after its last input; it may be async.

    It runs on scale-down, when the app stops and on Ctrl-C, for at most 30 seconds (Ctrl-C once
    more ends it at once). What it raises goes to the log; what it writes into volumes is committed.
    """
    _require_parentheses("exit", _wrong)
    return _hook(Hook("exit"))


def _hook(hook: Hook) -> Callable[[F], F]:
    def mark(raw: F) -> F:
        what = f"@{hook.kind}"
        _require_function(what, raw)
        if inspect.isgeneratorfunction(raw) or inspect.isasyncgenfunction(raw):
            raise InvalidError(f"{what}: {raw.__qualname__} is a generator")
        needed = [p for p in inspect.signature(raw).parameters.values() if p.default is p.empty]
        if len([p for p in needed if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]) > 1:
            raise InvalidError(f"{what}: {raw.__qualname__} is called without arguments but self")
        if hasattr(raw, HOOK):
            raise InvalidError(f"{raw.__qualname__} has two of @enter and @exit")
        setattr(raw, HOOK, hook)
        return raw

    return mark


def _require_function(what: str, raw: Any) -> None:
    if isinstance(raw, Method):
        raise InvalidError(f"{what} on {raw.name}, which is a @method already")
    if not inspect.isfunction(raw):
        raise InvalidError(f"{what} decorates a method, not {raw!r}")


def _require_parentheses(name: str, given: object) -> None:
    if given is not None:
        raise InvalidError(f"@{name} needs parentheses: write @{name}()")


# --- finding them again ---------------------------------------------------------------------------


def members(cls: type) -> dict[str, Any]:
    """What the class and its parents define, parents first; a subclass replaces in place."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found.update(vars(base))
    return found


def methods_of(cls: type) -> dict[str, Method[..., Any, Any]]:
    return {name: each for name, each in members(cls).items() if isinstance(each, Method)}


def hooks_of(cls: type, kind: str, snap: bool = False) -> list[str]:
    """The names of the @enter or @exit methods, in the order in which they run."""
    wanted = Hook(kind, snap)
    return [name for name, each in members(cls).items() if getattr(each, HOOK, None) == wanted]
