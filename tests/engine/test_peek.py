"""Values as text without unpickling: right for what is plain, harmless for what is hostile."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodal import pickling
from minimodal.engine import peek
from minimodal.types import Payload


@dataclass
class Item:
    name: str
    tags: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -(10**30), 2.5, "tea", "grüße", b"bytes", bytearray(b"x"), (), (1,), (1, 2),
        (1, 2, 3), (1, 2, 3, 4), [], [1, [2, {"a": None}]], {}, {"a": (1, 2), 3: {4}},
        frozenset({"x"}), {1},
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", [4, 5])
def test_plain_values_look_as_in_python(value: Any, protocol: int) -> None:
    assert peek.value(Payload(pickle.dumps(value, protocol))) == repr(value)


def test_objects_show_what_they_would_be_made_with() -> None:
    said = peek.value(pickling.dumps(Item("tea", ["hot"])))
    assert said == f"{__name__}.Item(name='tea', tags=['hot'])"
    assert "numpy" in peek.value(pickling.dumps(np.arange(3)))
    assert peek.value(pickling.dumps(Path("/a"))).startswith("pathlib.")
    assert peek.arguments(pickling.dumps(((3,), {"name": "tea"}))) == "3, name='tea'"


def test_what_is_long_is_cut() -> None:
    assert len(peek.value(pickling.dumps(list(range(1000))))) <= peek.SHOWN
    assert "too long" in peek.value(pickling.dumps("x" * 100_000))
    again: list[Any] = ["x" * 100]
    for _ in range(30):  # as text it would have 2 ** 30 parts
        again = [again, again]
    assert len(peek.value(pickling.dumps(again))) <= peek.SHOWN
    endless: list[Any] = []
    endless.append(endless)
    assert peek.value(pickling.dumps(endless)).startswith("[")


class Hostile:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/never",)


def test_nothing_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = Payload(pickle.dumps(Hostile()))
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("it was called"))
    assert "system('touch /tmp/never')" in peek.value(hostile)


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_harmless(data: bytes) -> None:
    for text in (peek.value(Payload(data)), peek.arguments(Payload(data))):
        assert len(text) <= peek.SHOWN


SHARED = b")" + b"2\x86" * 200  # a tuple with 2 ** 200 leaves


@pytest.mark.parametrize(
    "data",
    [
        b"}" + SHARED + b"Ns.",
        b"}(" + SHARED + b"Nu.",
        b"(" + SHARED + b"Nd.",
        b"\x8f(" + SHARED + b"\x90.",
        b"(" + SHARED + b"\x91.",
        SHARED + b"\x8c\x01x\x93.",
        b"cshop\nItem\n)\x81}" + SHARED + b"Nsb.",
    ],
    ids=["setitem", "setitems", "dict", "additems", "frozenset", "global", "attributes"],
)
def test_a_key_that_takes_for_ever_to_hash_is_not_hashed(data: bytes) -> None:
    assert len(peek.value(Payload(data))) <= peek.SHOWN
    given = Payload(b")" + data[:-1] + b"\x86.")
    assert len(peek.arguments(given)) <= peek.SHOWN
