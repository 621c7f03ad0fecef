"""What goes beside a pickle, and comes back as what it was without another copy."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from minimodal.errors import ResourceExhaustedError
from minimodal.pickling import FEW, MAX_BYTES, OUT_OF_BAND_BYTES, dumps, kept, loads
from minimodal.types import Payload

LARGE = bytes(OUT_OF_BAND_BYTES)
SMALL = bytes(OUT_OF_BAND_BYTES - 1)


@pytest.mark.parametrize(
    ("value", "apart"),
    [
        (LARGE, 1),
        (SMALL, 0),
        (bytearray(LARGE), 1),
        ((LARGE, "meta"), 1),
        (((LARGE, 3, b"few"), {}), 1),
        (((3,), {"data": LARGE, "name": "tea"}), 1),
        (((LARGE, LARGE), {"again": LARGE}), 1),
        (((SMALL,), {}), 0),
        ([LARGE], 0),
        ((0,) * FEW + (LARGE,), 0),
        (((bytearray(LARGE),), {}), 1),
        ((), 0),
        (((), {}), 0),
    ],
)
def test_large_bytes_go_beside_the_pickle(value: Any, apart: int) -> None:
    payload = dumps(value)
    assert len(payload.buffers) == apart
    assert all(buffer is LARGE for buffer in payload.buffers if type(buffer) is bytes)
    back = loads(payload)
    assert back == value
    assert type(back) is type(value)


def test_bytes_that_arrived_are_the_value() -> None:
    args, kwargs = loads(dumps(((LARGE,), {"same": LARGE})))
    assert args[0] is LARGE
    assert kwargs["same"] is LARGE


def test_what_is_kept_is_as_it_was() -> None:
    changing = bytearray(LARGE)
    payload = dumps(((changing, LARGE), {}))
    back = kept(payload)
    changing[0] = 1
    assert loads(payload) == ((changing, LARGE), {})
    assert loads(back) == ((bytearray(LARGE), LARGE), {})
    assert back.buffers[1] is LARGE
    assert kept(dumps(SMALL)) == dumps(SMALL)


class Window:
    """Pickles a part of its bytes as a buffer, as an array over shared memory would."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Window, (pickle.PickleBuffer(memoryview(self.data)[: 2 * OUT_OF_BAND_BYTES]),)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_part_of_bytes_travels_as_that_part(kind: Any) -> None:
    payload = dumps(Window(kind(b"ab" * OUT_OF_BAND_BYTES + b"rest")))
    assert type(payload.buffers[0]) is memoryview
    assert bytes(loads(payload).data) == b"ab" * OUT_OF_BAND_BYTES


def test_what_is_too_large_is_refused_before_it_is_copied() -> None:
    with pytest.raises(ResourceExhaustedError, match=r"an argument of f is 1,074 MB; at most"):
        dumps(((bytearray(LARGE), bytes(MAX_BYTES)), {}), "an argument of f")
    with pytest.raises(ResourceExhaustedError, match=r"the value \(bytes\) is"):
        dumps(bytes(MAX_BYTES))


def test_a_call_of_small_values_is_an_ordinary_pickle() -> None:
    assert dumps(((1, "x"), {})) == Payload(pickle.dumps(((1, "x"), {}), protocol=5))
