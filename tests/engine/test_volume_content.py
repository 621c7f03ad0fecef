"""Objects of a volume, on file systems that copy badly."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minimodal.engine import volume_content
from minimodal.engine.volume_content import Contents


@pytest.mark.parametrize("given", [0, 1000])
def test_a_kernel_that_stops_copying_shortens_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: int
) -> None:
    """copy_file_range gives 0 on some, though bytes are left."""
    asked: list[int] = []
    real = os.copy_file_range

    def stops(source: int, target: int, count: int, at: int, to: int) -> int:
        asked.append(count)
        return real(source, target, given, at, to) if given and len(asked) == 1 else 0

    monkeypatch.setattr(volume_content, "_clone", lambda source, target: False)
    monkeypatch.setattr(os, "copy_file_range", stops)
    data = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(data)
    contents = Contents(tmp_path / "objects")
    with open(tmp_path / "file", "rb") as file, open(tmp_path / "copy", "w+b") as copy:
        digest, size = contents.put(file.fileno(), "file")
        contents.copy_to(digest, copy.fileno(), "file")
        assert size == len(data)
        assert copy.read() == data
    assert asked
