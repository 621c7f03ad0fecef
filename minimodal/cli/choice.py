"""Which thing of a loaded script is meant: an entrypoint, a function, or a method of a class.

Without a name the best level that holds exactly one thing decides: an entrypoint at module level, a
function at module level, an entrypoint of an app, a function of an app.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from minimodal.app import App, LocalEntrypoint
from minimodal.function import Function

from .failure import UsageError, nearest
from .reference import Script


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be run. `call` runs it with the arguments that `signature` has."""

    name: str
    app: App
    thing: LocalEntrypoint[..., Any] | Function[..., Any, Any]

    @property
    def is_local(self) -> bool:
        """Whether it runs in this process, not in a container."""
        return isinstance(self.thing, LocalEntrypoint)

    @property
    def raw(self) -> Callable[..., Any]:
        raw = self.thing.raw
        assert raw is not None
        return raw

    def caller(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Any]:
        """What runs it with these arguments: here, or in a container."""
        if isinstance(self.thing, LocalEntrypoint):
            return functools.partial(self.thing, *args, **kwargs)
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
        raise UsageError(
            f"{script.reference} defines no App.",
            hint='app = minimodal.App("name"), and @app.function() on what shall run in a container',
            code=1,
        )
    return apps


def _only(script: Script, module: ModuleType) -> Target:
    apps = _apps(module)
    levels = [
        list(_at_module_level(module, LocalEntrypoint)),
        list(_at_module_level(module, Function)),
        [each for app in apps for each in _entrypoints(app, apps)],
        [each for app in apps for each in _functions(app, apps)],
    ]
    for level in levels:
        if len(level) == 1:
            return level[0]
        if level:
            kind = "entrypoints" if level[0].is_local else "functions"
            raise UsageError(
                f"{script.reference} has several {kind}; say which one:",
                choices=[f"minimodal run {script.spell(each.name)}" for each in level],
                code=1,
            )
    if not apps:
        raise UsageError(
            f"{script.reference} defines no App.",
            hint='app = minimodal.App("name"), and @app.function() on what shall run in a container',
            code=1,
        )
    raise UsageError(
        f"{script.reference} has an App, but nothing to run.",
        hint="decorate a function with @app.local_entrypoint() or @app.function()",
        code=1,
    )


def _named(script: Script, module: ModuleType, wanted: str) -> Target:
    known = {each.name: each for each in reversed(list(_everything(module)))}
    if wanted in known:
        return known[wanted]
    by_tag = [each for name, each in known.items() if name.rpartition(".")[2] == wanted]
    if len({id(each.thing) for each in by_tag}) == 1:
        return by_tag[0]
    if by_tag:
        raise UsageError(
            f"{wanted!r} is in several apps; say which one:",
            choices=[f"minimodal run {script.spell(each.name)}" for each in by_tag],
            code=1,
        )
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


def _everything(module: ModuleType) -> Iterator[Target]:
    yield from _at_module_level(module, LocalEntrypoint)
    yield from _at_module_level(module, Function)
    apps = _apps(module)
    for app in apps:
        yield from _entrypoints(app, apps, qualified=True)
        yield from _functions(app, apps, qualified=True)


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


def _entrypoints(app: App, apps: dict[App, str], qualified: bool = False) -> Iterator[Target]:
    prefix = f"{apps[app]}." if qualified or len(apps) > 1 else ""
    for tag, entrypoint in app.registered_entrypoints.items():
        yield Target(prefix + tag, app, entrypoint)


def _functions(app: App, apps: dict[App, str], qualified: bool = False) -> Iterator[Target]:
    prefix = f"{apps[app]}." if qualified or len(apps) > 1 else ""
    for tag, function in app.registered_functions.items():
        yield Target(prefix + tag, app, function)
