"""Files of a sandbox, from outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal import Sandbox
from minimodal.errors import InvalidError


@pytest.fixture
def place(box: Sandbox) -> Iterator[str]:
    """A directory inside."""
    path = box.exec("mktemp", "-d").stdout.read().strip()
    yield path
    box.exec("rm", "-rf", path).wait()


def test_whole_files(box: Sandbox, place: str, tmp_path: Path) -> None:
    files = box.filesystem
    files.write_text("grüße", f"{place}/a/b/text")
    assert files.read_text(f"{place}/a/b/text") == "grüße"
    large = bytes(range(256)) * 10_000
    files.write_bytes(large, f"{place}/large")
    assert files.read_bytes(f"{place}/large") == large
    (tmp_path / "local").write_bytes(large)
    files.copy_from_local(tmp_path / "local", f"{place}/copy")
    files.copy_to_local(f"{place}/copy", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == large
    assert [(e.name, e.type, e.size) for e in files.list_files(place)] == [
        ("a", "directory", files.stat(f"{place}/a").size),
        ("copy", "file", len(large)),
        ("large", "file", len(large)),
    ]
    files.remove(place, recursive=True)
    with pytest.raises(FileNotFoundError):
        files.stat(place)


def test_open_ls_mkdir_rm(box: Sandbox, place: str) -> None:
    with box.open(f"{place}/f", "w") as file:
        file.write("one\ntwo\n")
    with box.open(f"{place}/f", "a") as file:
        file.write("three\n")
    with box.open(f"{place}/f") as file:
        assert file.readline() == "one\n"
        assert file.readlines() == ["two\n", "three\n"]
        file.seek(4)
        assert file.read(3) == "two"
    with box.open(f"{place}/f", "rb") as binary:
        assert binary.read() == b"one\ntwo\nthree\n"
    box.mkdir(f"{place}/d")
    box.mkdir(f"{place}/p/q", parents=True)
    assert box.ls(place) == ["d", "f", "p"]
    box.rm(f"{place}/f")
    box.rm(f"{place}/p", recursive=True)
    assert box.ls(place) == ["d"]


def test_errors_are_pythons_own(box: Sandbox, place: str) -> None:
    files = box.filesystem
    with pytest.raises(FileNotFoundError, match="nothing"):
        files.read_text(f"{place}/nothing")
    with pytest.raises(FileNotFoundError):
        box.open(f"{place}/nothing")
    with pytest.raises(IsADirectoryError):
        files.read_bytes(place)
    with pytest.raises(IsADirectoryError):
        files.write_text("x", place)
    files.write_text("x", f"{place}/file")
    with pytest.raises(NotADirectoryError):
        box.ls(f"{place}/file")
    with pytest.raises(FileExistsError):
        box.mkdir(f"{place}/file")
    with pytest.raises(FileExistsError):
        box.open(f"{place}/file", "x")
    with pytest.raises(InvalidError, match="absolute"):
        files.read_text("relative")
    with pytest.raises(InvalidError, match="no mode"):
        box.open(f"{place}/file", "q")
    with pytest.raises(TypeError):
        files.write_text(b"bytes", f"{place}/b")  # type: ignore[arg-type]  # on purpose
