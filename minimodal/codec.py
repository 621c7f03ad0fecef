"""Our records as JSON and back, strictly: what the store keeps and the wire carries of a spec.

Driven by the annotations of the dataclasses alone, so a record gains a field without a change here.
A field that is missing takes its default (an older writer); one that is unknown is refused (a newer
writer, whose meaning we would drop). A union of records is tagged with the class's name; bytes are
base64. Nothing here knows pickles: a Payload is bytes.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import enum
import functools
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from .errors import InvalidError
from .layers import ImageSpec

T = TypeVar("T")

TAG = "$type"

# What a field annotated `Any` may hold besides plain scalars: FunctionSpec.image.
_OPEN: dict[str, type] = {"ImageSpec": ImageSpec}

_BYTES = frozenset({bytes, bytearray, memoryview})


def to_plain(record: Any) -> Any:
    """The record as dicts, lists, strings, numbers and None. Raises InvalidError naming the field."""
    return _encode(type(record), record, type(record).__name__)


def from_plain(cls: type[T], data: Any) -> T:
    """The record of class `cls` that `to_plain` made. Raises InvalidError naming the field."""
    return cast(T, _decode(cls, data, cls.__name__))


def to_json(record: Any) -> str:
    """One line of ASCII; equal records give equal text."""
    return json.dumps(to_plain(record), sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(cls: type[T], text: str | bytes) -> T:
    """Raises InvalidError also for text that is not JSON."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{cls.__name__}: not JSON: {error}") from error
    return from_plain(cls, data)


# --- to plain data --------------------------------------------------------------------------------


def _encode(kind: Any, value: Any, where: str) -> Any:
    if kind is Any:
        return _encode_open(value, where)
    options = _options(kind)
    if options:
        return _encode_union(options, value, where)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(value, tuple):
            raise _refuse(where, value, "a tuple")
        kinds = _item_kinds(kind, len(value), where)
        return [
            _encode(k, v, f"{where}[{i}]")
            for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        ]
    if _is_mapping(origin):
        if not isinstance(value, Mapping):
            raise _refuse(where, value, "a mapping")
        item = typing.get_args(kind)[1]
        return {_text(k, where): _encode(item, v, f"{where}[{k!r}]") for k, v in value.items()}
    if _has_fields(kind):
        if value.__class__ is not kind:
            raise _refuse(where, value, kind.__name__)
        return {
            name: _encode(hint, getattr(value, name), f"{where}.{name}")
            for name, (hint, _) in _fields(kind).items()
        }
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        if not isinstance(value, kind):
            raise _refuse(where, value, kind.__name__)
        return value.value
    if kind in _BYTES:
        return base64.b64encode(value).decode("ascii")
    return _scalar(kind, value, where)


def _encode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    some = [option for option in options if option is not type(None)]
    if len(some) == 1:
        return _encode(some[0], value, where)
    for option in some:
        if _is_instance(option, value):
            plain = _encode(option, value, where)
            return {TAG: option.__name__, **plain} if _has_fields(option) else plain
    raise _refuse(where, value, " or ".join(map(_name, options)))


def _encode_open(value: Any, where: str) -> Any:
    cls = type(value)
    if _OPEN.get(cls.__name__) is cls:
        return {TAG: cls.__name__, **_encode(cls, value, where)}
    if value is None or cls in (str, int, float, bool):
        return value if value is None else _scalar(cls, value, where)
    raise _refuse(where, value, f"{', '.join(_OPEN)} or a scalar")


# --- and back -------------------------------------------------------------------------------------


def _decode(kind: Any, data: Any, where: str) -> Any:
    if kind is Any:
        return _decode_open(data, where)
    options = _options(kind)
    if options:
        return _decode_union(options, data, where)
    origin = typing.get_origin(kind)
    if origin is tuple:
        if not isinstance(data, list):
            raise _refuse(where, data, "a list")
        kinds = _item_kinds(kind, len(data), where)
        return tuple(_decode(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, data)))  # noqa: B905
    if _is_mapping(origin):
        if not isinstance(data, dict):
            raise _refuse(where, data, "an object")
        item = typing.get_args(kind)[1]
        return {_text(k, where): _decode(item, v, f"{where}[{k!r}]") for k, v in data.items()}
    if _has_fields(kind):
        return _decode_record(kind, data, where)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        try:
            return kind(data)
        except ValueError:
            raise _refuse(where, data, kind.__name__) from None
    if kind in _BYTES:
        try:
            return base64.b64decode(_text(data, where), validate=True)
        except (binascii.Error, ValueError):
            raise _refuse(where, data, "base64") from None
    return _scalar(kind, data, where)


def _decode_record(cls: Any, data: Any, where: str) -> Any:
    if not isinstance(data, dict):
        raise _refuse(where, data, f"an object ({cls.__name__})")
    fields = _fields(cls)
    unknown = sorted(data.keys() - fields.keys())
    if unknown:
        raise InvalidError(
            f"{where}: {cls.__name__} has no field {', '.join(map(repr, unknown))}: it was written "
            "by a newer version of minimodal, or by something else."
        )
    missing = sorted(n for n, (_, required) in fields.items() if required and n not in data)
    if missing:
        raise InvalidError(f"{where}: {cls.__name__} needs the field {', '.join(missing)}")
    values = {name: _decode(fields[name][0], v, f"{where}.{name}") for name, v in data.items()}
    return cls(**values)


def _decode_union(options: tuple[Any, ...], data: Any, where: str) -> Any:
    if data is None and type(None) in options:
        return None
    some = [option for option in options if option is not type(None)]
    if len(some) == 1:
        return _decode(some[0], data, where)
    records = {option.__name__: option for option in some if _has_fields(option)}
    if records and isinstance(data, dict):
        return _decode_tagged(records, data, where)
    for option in some:
        if _is_instance(option, data):
            return _decode(option, data, where)
    raise _refuse(where, data, " or ".join(map(_name, options)))


def _decode_tagged(records: Mapping[str, type], data: dict[str, Any], where: str) -> Any:
    tag = data.get(TAG)
    if not isinstance(tag, str) or tag not in records:
        raise InvalidError(f"{where}: {TAG} is {tag!r}, not one of {', '.join(records)}")
    content = {name: value for name, value in data.items() if name != TAG}
    return _decode(records[tag], content, where)


def _decode_open(data: Any, where: str) -> Any:
    if isinstance(data, dict):
        return _decode_tagged(_OPEN, data, where)
    if isinstance(data, list):
        raise _refuse(where, data, f"{', '.join(_OPEN)} or a scalar")
    return data if data is None else _scalar(type(data), data, where)


# --- what annotations say -------------------------------------------------------------------------


@functools.cache
def _fields(cls: Any) -> dict[str, tuple[Any, bool]]:
    """Name to (annotation, whether it has no default)."""
    hints = typing.get_type_hints(cls)
    if not dataclasses.is_dataclass(cls):
        return {name: (hints[name], name not in cls._field_defaults) for name in cls._fields}
    nothing = dataclasses.MISSING
    return {
        f.name: (hints[f.name], f.default is nothing and f.default_factory is nothing)
        for f in dataclasses.fields(cls)
    }


def _has_fields(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"))


def _options(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        options = typing.get_args(kind)
        return (bytes,) if _BYTES.issuperset(options) else options
    return ()


def _item_kinds(kind: Any, length: int, where: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if len(kinds) == 2 and kinds[1] is ...:
        return (kinds[0],) * length
    if len(kinds) != length:
        raise InvalidError(f"{where}: {length} items in place of {len(kinds)}")
    return kinds


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_instance(kind: Any, value: Any) -> bool:
    kind = typing.get_origin(kind) or kind
    if kind is int:
        return type(value) is int  # a bool is an int too, and would come back as one
    return isinstance(value, {float: (int, float), tuple: (tuple, list)}.get(kind, kind))


def _scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is float and type(value) in (int, float):
        if type(value) is float and not math.isfinite(value):
            raise _refuse(where, value, "a finite number")
        return value
    if kind in (str, int, bool) and type(value) is kind:
        return value
    if kind not in (str, int, bool, float):
        raise TypeError(f"{where}: the codec has no form for {kind!r}")
    raise _refuse(where, value, kind.__name__)


def _text(value: Any, where: str) -> str:
    if type(value) is not str:
        raise _refuse(where, value, "a string")
    return value


def _name(kind: Any) -> str:
    return "None" if kind is type(None) else getattr(kind, "__name__", str(kind))


def _refuse(where: str, value: Any, wanted: str) -> InvalidError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return InvalidError(f"{where}: {shown} is not {wanted}")
