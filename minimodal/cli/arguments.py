"""A function's parameters as typed options of the command line.

`parse(function, prog, argv)` gives the arguments to call it with; `--help` lists them. Supported are
str, int, float, bool (`--x`/`--no-x`), datetime, Path, Enum, Literal, list of these, and Optional.
A parameter without annotation is a text. A sole `*args` takes the rest of the line as it is.
"""

from __future__ import annotations

import argparse
import enum
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from .failure import UsageError
from .parser import Parser

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Kind(NamedTuple):
    """How one option is read. `word` is its metavariable in the help."""

    read: Callable[[str], Any]
    word: str
    many: bool = False
    flag: bool = False


def parse(function: Callable[..., Any], prog: str, argv: Sequence[str]) -> Arguments:
    """The arguments for `function` that `argv` gives. Raises UsageError; prints help on `--help`."""
    signature, hints = _signature(function)
    parameters = list(signature.parameters.values())
    rest = [each for each in parameters if each.kind is each.VAR_POSITIONAL]
    if rest and len(parameters) == 1:
        if list(argv) in (["-h"], ["--help"]):
            _parser(function, prog, f"{prog} anything …").print_help()
            raise SystemExit(0)
        return tuple(argv), {}
    needed = [each.name for each in parameters if each.default is each.empty]
    parser = _parser(
        function, prog, " ".join([prog, *(f"{option_name(name)} …" for name in needed)])
    )
    for parameter in parameters:
        _add(parser, function, parameter, hints.get(parameter.name, parameter.annotation))
    given = vars(parser.parse(argv))
    args = [given[each.name] for each in parameters if each.kind is each.POSITIONAL_ONLY]
    kwargs = {
        each.name: given[each.name]
        for each in parameters
        if each.kind is not each.POSITIONAL_ONLY and each.name in given
    }
    return tuple(args), kwargs


def _signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    signature = inspect.signature(function)
    try:
        hints = typing.get_type_hints(inspect.unwrap(function))
    except Exception as error:  # an annotation is the user's code: it may name what does not exist
        raise UsageError(
            f"the annotations of {_name(function)} cannot be resolved: {error}.", code=1
        ) from error
    return signature, hints


def _parser(function: Callable[..., Any], prog: str, example: str) -> Parser:
    return Parser(prog, inspect.getdoc(function) or "", example)


def option_name(name: str) -> str:
    return "--" + name.strip("_").replace("_", "-")


def _add(
    parser: Parser, function: Callable[..., Any], parameter: inspect.Parameter, annotation: Any
) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise UsageError(
            f"{_name(function)}({star}{parameter.name}) cannot be given on the command line: "
            "only *args as the sole parameter can, and takes the rest of the line as it is.",
            code=1,
        )
    try:
        kind = kind_of(annotation)
    except TypeError as error:
        raise UsageError(
            f"the annotation of {parameter.name!r} in {_name(function)} is not one that the command "
            f"line can read: {error}.",
            hint="str, int, float, bool, datetime, Path, Enum, Literal, list or Optional of one",
            code=1,
        ) from None
    required = parameter.default is parameter.empty
    option: dict[str, Any] = {"dest": parameter.name, "required": required}
    if not required:
        option["default"] = parameter.default
        option["help"] = f"default: {_shown(parameter.default)}"
    else:
        option["help"] = "required"
    if kind.flag:
        option["action"] = argparse.BooleanOptionalAction
        parser.add_argument(option_name(parameter.name), **option)
        return
    if kind.many:
        option |= {"nargs": "+", "action": _Extend}
    option["help"] = option["help"].replace("%", "%%")
    parser.add_argument(
        option_name(parameter.name), type=_refusing(kind), metavar=kind.word, **option
    )


class _Extend(argparse.Action):
    """`--x 1 2 --x 3` gives [1, 2, 3]; the first one replaces the default instead of adding to it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option: Any = None) -> None:
        before = getattr(namespace, self.dest)
        given = [] if before is self.default else before
        setattr(namespace, self.dest, [*given, *values])


def _refusing(kind: Kind) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not {error}") from None

    return read


def kind_of(annotation: Any) -> Kind:
    """How an annotation is read. Raises TypeError with the reason where it cannot be."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is inspect.Parameter.empty or annotation is Any:
        return Kind(str, "TEXT")
    if origin is typing.Annotated:
        return kind_of(inner[0])
    if origin in (typing.Union, types.UnionType):
        some = [each for each in inner if each is not type(None)]
        if len(some) == 1:
            return kind_of(some[0])
        raise TypeError(f"{_spell(annotation)} leaves open which type a text becomes")
    if origin is typing.Literal:
        return _literal(inner)
    if annotation in (list, tuple) or origin in (list, tuple, Sequence):
        return _many(annotation, inner)
    if isinstance(annotation, type):
        if issubclass(annotation, enum.Enum):
            return _enum(annotation)
        if annotation in SCALARS:
            return SCALARS[annotation]
    raise TypeError(f"{_spell(annotation)} is not supported")


def _many(annotation: Any, inner: tuple[Any, ...]) -> Kind:
    if typing.get_origin(annotation) is tuple or annotation is tuple:
        raise TypeError(f"{_spell(annotation)} is not supported; use a list")
    item = kind_of(inner[0] if inner else inspect.Parameter.empty)
    if item.many or item.flag:
        raise TypeError(f"{_spell(annotation)} is not supported")
    return Kind(item.read, item.word, many=True)


def _literal(values: tuple[Any, ...]) -> Kind:
    if not all(type(value) in (str, int) for value in values):
        raise TypeError("a Literal may hold texts and whole numbers only")
    return _one_of({str(value): value for value in values})


def _enum(kind: type[enum.Enum]) -> Kind:
    return _one_of({name: member for name, member in kind.__members__.items()})


def _one_of(values: dict[str, Any]) -> Kind:
    folded = {name.lower(): value for name, value in values.items()}

    def read(text: str) -> Any:
        if text in values:
            return values[text]
        if text.lower() in folded:
            return folded[text.lower()]
        raise ValueError("one of " + ", ".join(values))

    return Kind(read, "{" + ",".join(values) + "}")


def _number(of: Callable[[str], Any], what: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return of(text)
        except ValueError:
            raise ValueError(what) from None

    return read


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Z: Python 3.10 refuses it
    except ValueError:
        raise ValueError("a date such as 2026-01-31 or 2026-01-31T12:30:00+00:00") from None


SCALARS: dict[type, Kind] = {
    str: Kind(str, "TEXT"),
    int: Kind(_number(int, "a whole number"), "INT"),
    float: Kind(_number(float, "a number"), "FLOAT"),
    bool: Kind(bool, "", flag=True),
    datetime: Kind(_moment, "DATE"),
    Path: Kind(Path, "PATH"),
}


def _shown(default: Any) -> str:
    if isinstance(default, enum.Enum):
        return default.name
    return str(default) if isinstance(default, str | int | float | Path) else repr(default)


def _spell(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
