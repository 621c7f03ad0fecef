"""The codec: every record survives, nothing unknown or mistyped does."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimodal import codec, layers
from minimodal.errors import InvalidError
from minimodal.layers import Base, ImageSpec, PipInstall
from minimodal.types import (
    ByName,
    ByValue,
    CallState,
    ContainerSpec,
    Failure,
    FunctionSpec,
    ImageRef,
    Outcome,
    Payload,
    Resources,
)

F = FunctionSpec("app", "f", ByName("m", "f", "d1"))


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of an annotation; the codec's own reading of annotations is not used."""
    if hint is Any:
        return st.none() | records(ImageSpec)
    if hint is Payload:
        return st.builds(Payload, st.binary(), st.lists(st.binary(), max_size=2).map(tuple))
    if isinstance(hint, types.UnionType):
        return st.one_of([values(option) for option in typing.get_args(hint)])
    match typing.get_origin(hint), typing.get_args(hint):
        case origin, (item, end) if origin is tuple and end is ...:
            return st.lists(values(item), max_size=3).map(tuple)
        case origin, items if origin is tuple:
            return st.tuples(*map(values, items))
        case origin, (_, item) if origin is Mapping or (origin and issubclass(origin, Mapping)):
            return st.dictionaries(st.text(max_size=5), values(item), max_size=3)
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        return records(hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    scalars = {
        str: st.text(max_size=8),
        int: st.integers(),
        bool: st.booleans(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        type(None): st.none(),
        bytes: st.binary(max_size=8),
        bytearray: st.binary(max_size=8).map(bytearray),
        memoryview: st.binary(max_size=8).map(lambda data: memoryview(data)),
    }
    return typing.cast("st.SearchStrategy[Any]", scalars[hint])


def records(cls: Any) -> st.SearchStrategy[Any]:
    return st.builds(
        cls, **{name: values(hint) for name, hint in typing.get_type_hints(cls).items()}
    )


@pytest.mark.parametrize(
    "cls",
    [FunctionSpec, ImageSpec, Outcome, Failure, ContainerSpec, ImageRef, Resources],
)
def test_every_record_comes_back_equal_through_json(cls: Any) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(records(cls))
    def check(record: Any) -> None:
        text = codec.to_json(record)
        assert text.isascii()
        assert codec.from_json(cls, text) == record
        assert codec.to_json(codec.from_json(cls, text)) == text

    check()


def test_every_layer_is_in_the_union_and_told_apart() -> None:
    for layer in typing.get_args(layers.Layer):
        plain = {"layers": [{"$type": layer.__name__, **_least(layer)}]}
        assert type(codec.from_plain(ImageSpec, plain).layers[0]) is layer


def _least(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    needed = [name for name in cls._fields if name not in cls._field_defaults]
    return {name: "x" if hints[name] is str else [] for name in needed}


def test_a_union_is_tagged_and_a_lone_record_is_not() -> None:
    plain = codec.to_plain(F)
    assert plain["target"]["$type"] == "ByName"
    assert "$type" not in plain["resources"]
    by_value = F._replace(target=ByValue("b1", "3.11"))
    assert codec.from_plain(FunctionSpec, codec.to_plain(by_value)).target == by_value.target


def test_an_image_travels_in_the_open_field() -> None:
    image = ImageSpec((Base("debian:12", python="3.11"), PipInstall(("numpy",))))
    spec = F._replace(image=image)
    assert codec.from_json(FunctionSpec, codec.to_json(spec)).image == image


def test_a_missing_field_takes_its_default() -> None:
    plain = {"app": "a", "name": "f", "target": codec.to_plain(F)["target"]}
    assert codec.from_plain(FunctionSpec, plain).timeout == 300.0


REFUSED = [
    ({"cpus": 1}, r"Resources has no field 'cpus'.*newer version"),
    ({"cpu": "1"}, r"Resources\.cpu: '1' is not float"),
    ({"memory": 1.5}, r"Resources\.memory: 1\.5 is not int"),
    ({"memory": True}, r"Resources\.memory: True is not int"),
    ({"cpu": None}, r"Resources\.cpu: None is not float"),
    ({"gpu": 5}, r"Resources\.gpu: 5 is not str"),
    ([], r"is not an object \(Resources\)"),
]


@pytest.mark.parametrize(("data", "message"), REFUSED)
def test_wrong_data_is_refused_naming_the_field(data: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        codec.from_plain(Resources, data)


def test_wrong_shapes_inside_are_named_by_their_path() -> None:
    good = codec.to_plain(F._replace(image=ImageSpec((Base("x"),)), env=(("A", "b"),)))

    def refused(message: str, **changes: Any) -> None:
        with pytest.raises(InvalidError, match=message):
            codec.from_plain(FunctionSpec, {**good, **changes})

    refused(r"env\[0\]: 1 items in place of 2", env=[["A"]])
    refused(r"env: 'A' is not a list", env="A")
    refused(r"FunctionSpec\.target: \$type is 'Popen'", target={"$type": "Popen"})
    refused(r"FunctionSpec\.target: \$type is None", target={"module": "m"})
    refused(r"FunctionSpec\.image: \$type is 'Call'", image={"$type": "Call"})
    refused(r"image: \[\] is not ImageSpec or a scalar", image=[])
    refused(r"needs the field qualname, sources", target={"$type": "ByName", "module": "m"})
    refused(r"parameters\.data: '\?' is not base64", parameters={"data": "?"})
    with pytest.raises(InvalidError, match="'gone' is not CallState"):
        codec.from_plain(Outcome, {"state": "gone"})


@pytest.mark.parametrize("text", ["{", "", "\xff", "[" * 100_000])
def test_text_that_is_not_json_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="not JSON"):
        codec.from_json(Resources, text)


def test_what_json_cannot_hold_is_refused_when_written() -> None:
    with pytest.raises(InvalidError, match=r"Resources\.cpu: inf is not a finite number"):
        codec.to_json(Resources(cpu=float("inf")))
    with pytest.raises(InvalidError, match=r"FunctionSpec\.env: \[\] is not a tuple"):
        codec.to_json(F._replace(env=typing.cast(Any, [])))
    with pytest.raises(InvalidError, match=r"image: .* is not ImageSpec"):
        codec.to_json(F._replace(image=object()))


def test_buffers_of_any_kind_come_back_as_bytes() -> None:
    payload = Payload(bytearray(b"ab"), (memoryview(b"cd"),))
    plain = json.loads(codec.to_json(Outcome(CallState.OK, payload)))
    assert codec.from_plain(Outcome, plain).value == Payload(b"ab", (b"cd",))
