"""Frames survive any split of their bytes; garbage and truncation end in ProtocolError or in waiting."""

from __future__ import annotations

import mmap
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimodal.errors import ProtocolError
from minimodal.types import Payload
from minimodal.wire import HEADER, Decoder, Frame, Kind, Limits, encode

FRAMES = st.lists(
    st.tuples(
        st.sampled_from(Kind),
        st.integers(0, 2**64 - 1),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
        st.binary(max_size=200),
        st.lists(st.binary(max_size=200), max_size=3),
    ),
    max_size=5,
)


def plain(frame: Frame) -> tuple[object, ...]:
    data, buffers = frame.payload
    return frame.kind, frame.seq, frame.meta, bytes(data), [bytes(b) for b in buffers]


@given(FRAMES, st.lists(st.integers(1, 300), min_size=1))
def test_any_split_gives_the_same_frames(frames: list[tuple[object, ...]], cuts: list[int]) -> None:
    stream = b"".join(
        bytes(part)
        for kind, seq, meta, data, buffers in frames
        for part in encode(kind, seq, meta, Payload(data, tuple(buffers)))  # type: ignore[arg-type]
    )
    seen: list[Frame] = []
    decoder = Decoder(seen.append)
    at = turn = 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        decoder.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert [plain(frame) for frame in seen] == frames


@given(st.binary(max_size=2000))
def test_garbage_is_refused_or_waited_for(data: bytes) -> None:
    seen: list[Frame] = []
    decoder = Decoder(seen.append, Limits(meta_bytes=1000, body_bytes=1000))
    with suppress(ProtocolError):  # any other error is a bug
        decoder.feed(data)
    assert len(seen) * HEADER.size <= len(data), "no frame without its bytes"


def test_a_length_over_the_limit_is_refused_before_anything_is_made_for_it() -> None:
    decoder = Decoder(lambda frame: None, Limits(body_bytes=1000))
    with pytest.raises(ProtocolError, match="limit"):
        decoder.feed(HEADER.pack(Kind.RESULT, 0, 0, 0, 1, 1001))
    with pytest.raises(ProtocolError, match="limit"):
        Decoder(lambda frame: None).feed(HEADER.pack(Kind.RESULT, 0, 0, 0, 1, 2**63))


def test_a_claimed_length_within_the_limit_takes_memory_only_as_bytes_arrive() -> None:
    decoder = Decoder(lambda frame: None)
    before = resident()
    decoder.feed(HEADER.pack(Kind.RESULT, 0, 0, 0, 1, 1 << 30) + bytes(1000))
    assert resident() - before < 16 << 20


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
