"""Which thing of a loaded script is meant: an entrypoint, a function, or a method of a class.

Without a name the best level that holds exactly one thing decides: an entrypoint at module level, a
function at module level, an entrypoint of an app, a function of an app.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

from minimodal.app import App
from minimodal.cls import Cls
from minimodal.decorators import LocalEntrypoint
from minimodal.function import Function, endpoint_of
from minimodal.methods import methods_of
from minimodal.parameters import TYPES, decode

from .failure import UsageError, nearest
from .reference import Script


class ClassMethod:
    """A method of a class. On the command line its arguments and those of the class are one set."""

    def __init__(self, cls: Cls[Any], method: str) -> None:
        self.cls = cls
        self.method = method
        assert cls.raw is not None
        found = methods_of(cls.raw)[method]
        self.is_generator = found.is_generator
        self._own = _parameters(found.raw)[1:]  # without self
        self._of_class = self._constructor()

    def _constructor(self) -> list[inspect.Parameter]:
        raw, shape = self.cls.raw, self.cls.shape
        assert raw is not None
        assert shape is not None
        if shape.parameters is None:
            return _parameters(raw.__init__)[1:]
        return [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.default is None else decode(each.default),
                annotation=TYPES[each.type],
            )
            for each in shape.parameters
        ]

    @property
    def raw(self) -> Callable[..., Any]:
        """Stands for the method with all the arguments that the command line may give."""
        known = {each.name for each in self._own}
        for each in self._of_class:
            if each.name in known:
                raise UsageError(
                    f"{self.cls.name} and its method {self.method} both have an argument "
                    f"{each.name!r}, so the command line cannot tell them apart.",
                    hint="call it from an @app.local_entrypoint()",
                    code=1,
                )
        by_name = [each.replace(kind=each.KEYWORD_ONLY) for each in (*self._own, *self._of_class)]

        def pooled(**_: Any) -> None:
            """Only its signature is of use."""

        raw = methods_of(self.cls.raw)[self.method].raw  # type: ignore[arg-type]  # not None
        pooled.__doc__, pooled.__qualname__ = inspect.getdoc(raw), raw.__qualname__
        pooled.__annotations__ = {each.name: each.annotation for each in by_name}
        pooled.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]
        return pooled

    def remote(self, **given: Any) -> Any:
        of_class = {each.name: given.pop(each.name) for each in self._of_class}
        return getattr(self.cls(**of_class), self.method).remote(**given)


def _parameters(raw: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(raw, eval_str=True).parameters.values())
    except NameError:  # an annotation that only a type checker resolves
        return list(inspect.signature(raw).parameters.values())


class Target(NamedTuple):
    """What is to be run. `call` runs it with the arguments that `signature` has."""

    name: str
    app: App
    thing: LocalEntrypoint[..., Any] | Function[..., Any, Any] | ClassMethod

    @property
    def is_local(self) -> bool:
        """Whether it runs in this process, not in a container."""
        return isinstance(self.thing, LocalEntrypoint)

    @property
    def is_endpoint(self) -> bool:
        """Whether it answers HTTP, and nothing else."""
        thing = self.thing
        if isinstance(thing, ClassMethod):
            return endpoint_of(methods_of(thing.cls.raw)[thing.method].raw) is not None  # type: ignore[arg-type]  # not None
        return endpoint_of(thing.raw) is not None

    @property
    def raw(self) -> Callable[..., Any]:
        raw = self.thing.raw
        assert raw is not None
        return raw

    @property
    def container_of(self) -> Cls[Any] | Function[..., Any, Any]:
        """Whose containers it runs in."""
        assert not isinstance(self.thing, LocalEntrypoint)
        return self.thing.cls if isinstance(self.thing, ClassMethod) else self.thing

    def caller(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """What runs it with these arguments: here, or in a container."""
        if isinstance(self.thing, LocalEntrypoint):
            return functools.partial(self.thing, *args, **kwargs)
        if self.is_endpoint:
            raise UsageError(
                f"{self.name} is a web endpoint: it is called by HTTP alone.",
                hint="`minimodal serve` with the same script says its URL",
                code=1,
            )
        if self.thing.is_generator:
            raise UsageError(
                f"{self.name} is a generator, and what it yields would be lost.",
                hint=f"call {self.name}.remote_gen() from an @app.local_entrypoint()",
                code=1,
            )
        return functools.partial(self.thing.remote, *args, **kwargs)


def choose(script: Script, module: ModuleType) -> Target:
    """The target that the reference names, or the only one there is. Raises UsageError."""
    wanted = script.reference.target
    return _named(script, module, wanted) if wanted else _only(script, module)


def apps_of(script: Script, module: ModuleType) -> dict[App, str]:
    """The app that the reference names, or all at module level, and their variables' names."""
    apps = _apps(module)
    wanted = script.reference.target
    if wanted:
        named = {app: name for app, name in apps.items() if wanted in (name, app.name)}
        if not named:
            near = nearest(wanted, apps.values())
            raise UsageError(
                f"there is no app {wanted!r} in {script.reference.source}.",
                choices=[script.spell(name) for name in apps.values()],
                hint=script.spell(near) if near else "",
            )
        return named
    if not apps:
        raise _no_app(script)
    return apps


def _only(script: Script, module: ModuleType) -> Target:
    apps = _apps(module)
    prefixes = {app: f"{variable}." if len(apps) > 1 else "" for app, variable in apps.items()}
    levels = [
        list(_at_module_level(module, LocalEntrypoint)),
        list(_at_module_level(module, Function)),
        [each for app, prefix in prefixes.items() for each in _entrypoints(app, prefix)],
        [each for app, prefix in prefixes.items() for each in _functions(app, prefix)],
    ]
    for every in levels:
        level = [each for each in every if not each.is_endpoint]
        if len(level) == 1:
            return level[0]
        if level:
            kind = "entrypoints" if level[0].is_local else "functions"
            raise _several(script, f"{script.reference} has several {kind}", level)
    if not apps:
        raise _no_app(script)
    of_classes = [each for app, prefix in prefixes.items() for each in _methods(app, prefix)]
    methods = [each.name for each in of_classes if not each.is_endpoint]
    if not methods and any(each.is_endpoint for each in itertools.chain(*levels, of_classes)):
        raise UsageError(
            f"{script.reference} has web endpoints alone, which are called by HTTP.",
            hint=f"minimodal serve {script.reference}",
            code=1,
        )
    raise UsageError(
        f"{script.reference} has an App, but "
        + ("only methods of classes; say which one:" if methods else "nothing to run."),
        choices=[f"minimodal run {script.spell(name)}" for name in methods],
        hint=""
        if methods
        else "decorate a function with @app.local_entrypoint() or @app.function()",
        code=1,
    )


def _named(script: Script, module: ModuleType, wanted: str) -> Target:
    known: dict[str, Target] = {each.name: each for each in reversed(list(_everything(module)))}
    if wanted in known:
        return known[wanted]
    of_class = [each for name, each in known.items() if name.startswith(f"{wanted}.")]
    of_class = [each for each in of_class if isinstance(each.thing, ClassMethod)]
    if len(of_class) == 1:
        return of_class[0]
    if of_class:
        raise _several(script, f"{wanted} is a class with several methods", of_class)
    by_tag = [each for name, each in known.items() if name.rpartition(".")[2] == wanted]
    if len({id(each.thing) for each in by_tag}) == 1:
        return by_tag[0]
    if by_tag:
        raise _several(script, f"{wanted!r} is in several apps", by_tag)
    plain = getattr(module, wanted, None)
    if callable(plain):
        raise UsageError(
            f"{wanted} of {script.reference.source} is a plain {type(plain).__name__}.",
            hint="decorate it with @app.function() or @app.local_entrypoint()",
        )
    near = nearest(wanted, known)
    raise UsageError(
        f"there is no {wanted!r} in {script.reference.source}. There is:",
        choices=[script.spell(name) for name in sorted(known)] or ["nothing that can be run"],
        hint=f"minimodal run {script.spell(near)}" if near else "",
    )


def _no_app(script: Script) -> UsageError:
    return UsageError(
        f"{script.reference} defines no App.",
        hint='app = minimodal.App("name"), and @app.function() on what shall run in a container',
        code=1,
    )


def _several(script: Script, words: str, targets: list[Target]) -> UsageError:
    choices = [f"minimodal run {script.spell(each.name)}" for each in targets]
    return UsageError(f"{words}; say which one:", choices=choices, code=1)


def _everything(module: ModuleType) -> Iterator[Target]:
    yield from _at_module_level(module, LocalEntrypoint)
    yield from _at_module_level(module, Function)
    apps = _apps(module)
    for app, variable in apps.items():
        yield from _entrypoints(app, f"{variable}.")
        yield from _functions(app, f"{variable}.")
        if len(apps) == 1:
            yield from _methods(app, "")
        yield from _methods(app, f"{variable}.")


def _apps(module: ModuleType) -> dict[App, str]:
    """The apps at module level and their variables' names."""
    found: dict[App, str] = {}
    for name, value in vars(module).items():
        if isinstance(value, App):
            found.setdefault(value, name)
    return found


def _at_module_level(module: ModuleType, kind: type[Any]) -> Iterator[Target]:
    seen = set()
    for name, value in vars(module).items():
        if isinstance(value, kind) and id(value) not in seen:
            seen.add(id(value))
            app = value.app if isinstance(value, LocalEntrypoint) else value._app
            if app is not None and value.raw is not None:  # a handle from from_name has neither
                yield Target(name, app, value)


def _entrypoints(app: App, prefix: str) -> Iterator[Target]:
    for tag, entrypoint in app.registered_entrypoints.items():
        yield Target(prefix + tag, app, entrypoint)


def _functions(app: App, prefix: str) -> Iterator[Target]:
    for tag, function in app.registered_functions.items():
        yield Target(prefix + tag, app, function)


def _methods(app: App, prefix: str) -> Iterator[Target]:
    for tag, cls in app.registered_classes.items():
        for method in methods_of(cls.raw) if cls.raw else ():
            yield Target(f"{prefix}{tag}.{method}", app, ClassMethod(cls, method))
