"""`parameter`: the typed constructor arguments of a class, and which object a set of values is.

Owns their declaration, their checks and their one text form. Two objects with the same text share a
pool, so defaults are filled in and values are brought to their plain type before it is written.
"""

from __future__ import annotations

import base64
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import ConflictError, InvalidError
from .types import ClassParameter

TYPES: dict[str, type] = {"str": str, "int": int, "bool": bool, "bytes": bytes}

_MISSING: Any = object()


class Parameter:
    """Stands in the class body; an object's own value hides it."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if self.default is _MISSING:
            raise AttributeError(f"{type(instance).__name__}.{self.name} has no value yet")
        return self.default


def parameter(*, default: Any = _MISSING, init: bool = True) -> Any:
    """Declare a constructor argument in the body of a class under `@app.cls()`.

        @app.cls()
        class Model:
            name: str = minimodal.parameter()
            size: int = minimodal.parameter(default=3)

        Model(name="small").predict.remote(1)

    Parameters: `default`, without which it must be given; `init=False` for an attribute that is no
    argument. The annotation must be str, int, bool or bytes. Arguments are passed by name, and each
    set of values has containers of its own. Wrong ones raise InvalidError.
    """
    return Parameter(default, init)


def collect(cls: type) -> tuple[ClassParameter, ...]:
    """The parameters of a class, with those of its parents. Raises InvalidError."""
    found: dict[str, ClassParameter] = {}
    for base in reversed(cls.__mro__):
        annotations = inspect.get_annotations(base)
        for name, value in vars(base).items():
            if value is parameter:
                raise InvalidError(f"{cls.__name__}.{name}: write parameter() with parentheses")
            found.pop(name, None)  # a plain attribute of a subclass fixes its parent's parameter
            if isinstance(value, Parameter) and value.init:
                found[name] = _declared(base, name, value, annotations)
    own_init = cls.__init__ is not object.__init__  # type: ignore[misc]  # read, not called
    if found and own_init:
        raise ConflictError(
            f"{cls.__name__} has both __init__ and parameter(): declare {', '.join(found)} as "
            "arguments of __init__, or drop __init__ and prepare in an @enter method"
        )
    return tuple(found.values())


def _declared(
    base: type, name: str, value: Parameter, annotations: Mapping[str, Any]
) -> ClassParameter:
    where = f"{base.__name__}.{name}"
    if name not in annotations:
        raise InvalidError(f"{where} needs a type: write `{name}: str = parameter(…)`")
    kind = _type_name(annotations[name], base)
    if kind is None:
        raise InvalidError(
            f"{where} is annotated {annotations[name]!r}; a parameter is str, int, bool or bytes. Pass "
            "other values to a method."
        )
    if value.default is _MISSING:
        return ClassParameter(name, kind)
    return ClassParameter(name, kind, encode(_checked(where, kind, value.default)))


def _type_name(annotation: Any, base: type) -> str | None:
    if isinstance(annotation, str) and annotation not in TYPES:
        module = sys.modules.get(base.__module__)
        annotation = getattr(module, annotation, annotation)
    if isinstance(annotation, str):
        return annotation if annotation in TYPES else None
    return next((name for name, kind in TYPES.items() if kind is annotation), None)


def bind(
    cls: str, parameters: Sequence[ClassParameter], args: tuple[Any, ...], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of each parameter, sorted by name. Raises InvalidError."""
    names = [each.name for each in parameters]
    if args:
        raise InvalidError(f"{cls}(…) takes its parameters by name: {_spelled(cls, names)}")
    for name in given.keys() - set(names):
        raise InvalidError(f"{cls} has no parameter {name!r}; it is {_spelled(cls, names)}")
    values: dict[str, Any] = {}
    for each in sorted(parameters, key=lambda each: each.name):
        if each.name in given:
            where = f"{cls}({each.name}=…)"
            values[each.name] = _checked(where, each.type, given[each.name])
        elif each.default is None:
            raise InvalidError(f"{cls}(…) needs a value for {each.name}: {each.type}")
        else:
            values[each.name] = decode(each.default)
    return values


def from_query(
    cls: str, parameters: Sequence[ClassParameter], query: Mapping[str, str]
) -> dict[str, Any]:
    """The value of each parameter as a URL's query gives it. Other names are the endpoint's own.

    Numbers are decimal, bools true or false, bytes the text in UTF-8. Raises InvalidError.
    """
    given: dict[str, Any] = {}
    for each in parameters:
        if each.name in query:
            given[each.name] = _read(f"?{each.name}= of {cls}", each.type, query[each.name])
    return bind(cls, parameters, (), given)


def _read(where: str, kind: str, text: str) -> Any:
    if kind == "bool":
        if text.lower() not in ("true", "false", "1", "0"):
            raise InvalidError(f"{where} must be true or false, not {text!r:.60}")
        return text.lower() in ("true", "1")
    if kind == "int":
        try:
            return int(text)
        except ValueError:
            raise InvalidError(f"{where} must be int, not {text!r:.60}") from None
    return text.encode() if kind == "bytes" else text


def to_query(values: Mapping[str, Any]) -> str:
    """The query of a URL that `from_query` reads as these values."""
    from urllib.parse import urlencode

    return urlencode(
        {
            name: value.decode("utf-8", "replace")
            if isinstance(value, bytes)
            else str(value).lower()
            if isinstance(value, bool)
            else value
            for name, value in values.items()
        }
    )


def _spelled(cls: str, names: Sequence[str]) -> str:
    return f"{cls}({', '.join(f'{name}=…' for name in names)})"


def _checked(where: str, kind: str, value: Any) -> Any:
    """The value as exactly that type: an enum's member or numpy's string is the plain one."""
    wanted = TYPES[kind]
    if not isinstance(value, wanted) or (kind == "int" and isinstance(value, bool)):
        raise InvalidError(f"{where} must be {kind}, not {value!r}")
    return str.__str__(value) if kind == "str" else wanted(value)


def encode(value: Any) -> str:
    """One text for equal values: JSON, with bytes as {"bytes": base64}."""
    if isinstance(value, bytes):
        value = {"bytes": base64.b64encode(value).decode()}
    return json.dumps(value)


def decode(text: str) -> Any:
    value = json.loads(text)
    return base64.b64decode(value["bytes"]) if isinstance(value, dict) else value


def are_defaults(parameters: Sequence[ClassParameter], values: Mapping[str, Any]) -> bool:
    """Whether these are the values of the object that the class itself stands for."""
    return all(each.default == encode(values[each.name]) for each in parameters)


def identity(values: Mapping[str, Any]) -> str:
    """The text that two objects share exactly where all their values are equal."""
    return json.dumps({name: encode(values[name]) for name in sorted(values)})
