"""Values as the database keeps them: what was `bytes` comes back as that, other memory writable."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from minimodal.engine.blobs import Blobs
from minimodal.engine.records import pack, unpack
from minimodal.types import Buffer, Payload

SMALL, LARGE = b"some", bytes(300_000)


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path, "en-1")


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize("content", [SMALL, LARGE])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_buffer_keeps_its_kind(
    blobs: Blobs, data: bytes, content: bytes, kind: type[Buffer]
) -> None:
    packed, _ = pack(Payload(data, (kind(content), b"other")), blobs)
    back, (buffer, other) = unpack(packed, blobs)
    assert (back, bytes(buffer), other) == (data, content, b"other")
    assert memoryview(buffer).readonly == (kind is bytes)


def test_a_row_of_an_earlier_version_is_writable(blobs: Blobs) -> None:
    part = struct.Struct("<?Q")
    packed = b"\1" + part.pack(False, 4) + b"data" + part.pack(True, len(LARGE))
    packed += bytes.fromhex(blobs.put(LARGE)) + part.pack(False, len(SMALL)) + SMALL
    data, buffers = unpack(packed, blobs)
    assert (data, [bytes(each) for each in buffers]) == (b"data", [LARGE, SMALL])
    assert not any(memoryview(each).readonly for each in buffers)
