"""Frames survive any split of their bytes; garbage and truncation end in ProtocolError or in waiting."""

from __future__ import annotations

import mmap
import random
import struct
from contextlib import suppress
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodal.errors import ProtocolError
from minimodal.types import Buffer, Payload
from minimodal.wire import AS_BYTES, HEADER, Decoder, Frame, Kind, Limits, encode

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


SIZES = st.sampled_from([0, 1, 4096, 4097, 300_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])


STEPS = st.lists(st.sampled_from([1, 4096, 65_536, 200_000, 1 << 30]), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=4), STEPS)
def test_large_parts_arrive_whole_and_as_what_they_were(
    shape: list[tuple[int, bool]], steps: list[int]
) -> None:
    parts = [random.Random(n).randbytes(n) for n, _ in shape]
    sent = [
        part if as_bytes else bytearray(part)
        for part, (_, as_bytes) in zip(parts, shape, strict=True)
    ]
    seen: list[Frame] = []
    decoder = Decoder(seen.append)
    transport(decoder, encode(Kind.RESULT, 7, "m", Payload(parts[0], tuple(sent))), steps)
    transport(decoder, encode(Kind.PONG, 8), steps)
    frame, after = seen
    assert plain(frame) == (Kind.RESULT, 7, "m", parts[0], parts)
    assert after.seq == 8
    assert type(frame.payload.data) is bytes
    for buffer, part in zip(frame.payload.buffers, sent, strict=True):
        if type(part) is bytes:
            assert type(buffer) is bytes
        elif part:
            assert not memoryview(buffer).readonly


def transport(decoder: Decoder, frame: list[Buffer], steps: list[int]) -> None:
    """Reads as asyncio does: it still holds the buffer that it was lent when it tells of the bytes."""
    stream = memoryview(b"".join(frame))
    for step in chain(steps, repeat(1 << 17)):
        if not stream:
            break
        lent = decoder.get_buffer(-1)
        n = min(len(lent), len(stream), step)
        lent[:n] = stream[:n]
        decoder.buffer_updated(n)
        stream = stream[n:]


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


def test_many_claimed_buffers_take_memory_only_as_bytes_arrive() -> None:
    decoder = Decoder(lambda frame: None)
    before = resident()
    claims = struct.pack("<1000Q", *[2 << 20] * 500, *[2 << 20 | AS_BYTES] * 500)
    decoder.feed(HEADER.pack(Kind.RESULT, 0, 1000, 0, 1, 0) + claims + bytes(300_000))
    assert resident() - before < 16 << 20


def test_a_buffer_of_bytes_cannot_claim_more_than_the_limit() -> None:
    decoder = Decoder(lambda frame: None, Limits(body_bytes=1000))
    with pytest.raises(ProtocolError, match="frame of 1001 bytes is over the limit"):
        decoder.feed(HEADER.pack(Kind.RESULT, 0, 1, 0, 1, 0) + struct.pack("<Q", 1001 | AS_BYTES))


def resident() -> int:
    """Bytes of this process that are in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
