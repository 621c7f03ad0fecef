"""`Image.run_function`: what a build-time function's cache key is, and how it reaches the build.

The key is the function's source text, the source of the functions and classes of the same module
that it refers to, the plain data it refers to, and its arguments. So an edit elsewhere in the script
does not rebuild the layer.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InvalidError
from .image_arguments import check_remote_path, env_items, secrets_of
from .layers import Layer, RunFunction
from .recipe import HasSecretId, with_secrets

if TYPE_CHECKING:
    from .home import Home


class FunctionStep(NamedTuple):
    """One `run_function`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    rest: RunFunction
    secrets: tuple[HasSecretId, ...] = ()
    volumes: tuple[tuple[str, Any], ...] = ()  # (target, object with _volume_id())

    def layer(self, home: Home | None) -> Layer:
        raw, arguments = self.function, (self.args, dict(self.kwargs))
        volumes = tuple((target, volume._volume_id()) for target, volume in self.volumes)
        key = source_key(raw, arguments)
        layer = self.rest._replace(name=raw.__qualname__, source=key, volumes=volumes)
        if home is not None:
            layer = self._stored(home, layer)
        return with_secrets(layer, self.secrets)

    def _stored(self, home: Home, layer: RunFunction) -> RunFunction:
        """With its pickle, and its sources if it can go by name, kept in the home."""
        from .pickling import dumps_by_value, python_version
        from .sources import collect, keep_bytes, snapshot

        arguments = (self.args, dict(self.kwargs))
        module = sys.modules.get(self.function.__module__)
        if module is not None and getattr(module, "__file__", None) and _by_name(self.function):
            found = collect(module)
            blob = keep_bytes(home, pickle.dumps(arguments, protocol=5))
            sources = snapshot(home, found)
            return layer._replace(module=found.module, sources=sources, blob=blob)
        value = dumps_by_value((self.function, *arguments), f"run_function({layer.name})")
        return layer._replace(blob=keep_bytes(home, bytes(value.data)), python=python_version())


def function_step(
    raw: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    env: Mapping[str, str | None] | None,
    secrets: Sequence[HasSecretId] | None,
    volumes: Mapping[str | os.PathLike[str], Any] | None,
    timeout: float,
) -> FunctionStep:
    """The step that `Image.run_function` adds. Raises InvalidError for what it cannot run."""
    if not callable(raw) or not hasattr(raw, "__code__"):
        raise InvalidError(
            f"run_function takes a plain Python function, not {type(raw).__name__}; give it the "
            "function without @app.function"
        )
    if timeout <= 0:
        raise InvalidError(f"run_function: timeout must be above 0 seconds, not {timeout}")
    mounted = tuple(
        (check_remote_path("run_function(volumes=)", str(path)), volume)
        for path, volume in (volumes or {}).items()
    )
    layer = RunFunction("", "", "", env=env_items("env", env), timeout=float(timeout))
    return FunctionStep(raw, tuple(args), dict(kwargs or {}), layer, secrets_of(secrets), mounted)


def source_key(function: Callable[..., Any], arguments: object) -> str:
    """A digest that changes with the function's text, what it refers to, and its arguments."""
    digest = hashlib.sha256()
    for part in _sources(function, set()):
        digest.update(part.encode() + b"\0")
    try:
        digest.update(pickle.dumps(arguments, protocol=4))
    except Exception as error:  # any user type may refuse, each with an error of its own
        raise InvalidError(f"run_function: its arguments cannot be pickled: {error}") from error
    return digest.hexdigest()


def _by_name(function: Callable[..., Any]) -> bool:
    return "<" not in function.__qualname__  # no lambda, no <locals>


def _sources(function: Callable[..., Any], seen: set[int]) -> Iterable[str]:
    if id(function) in seen:
        return
    seen.add(id(function))
    try:
        yield inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        yield repr((code.co_code, code.co_consts)) if code else function.__qualname__
    if not isinstance(function, FunctionType):
        return
    closure = inspect.getclosurevars(function)
    names = sorted(_names(function.__code__))
    for name in names:
        if name in closure.nonlocals:
            value = closure.nonlocals[name]
        elif name in function.__globals__:
            value = function.__globals__[name]
        else:
            continue
        yield name
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, (FunctionType, type)) and value.__module__ == function.__module__:
            yield from _sources(value, seen)
        elif _is_plain(value):
            yield repr(value)
        else:
            yield f"{type(value).__module__}.{type(value).__qualname__}"


def _names(code: CodeType) -> set[str]:
    names = set(code.co_names) | set(code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names(constant)
    return names


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(_is_plain(k) and _is_plain(v) for k, v in value.items())
    return value is None or isinstance(value, (str, bytes, int, float, complex, bool))
