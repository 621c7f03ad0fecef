"""Blobs on real files: whole or absent, found when damaged, collected only when nobody wants them."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from minimodal.engine.blobs import Blobs
from minimodal.engine.trouble import Damaged
from minimodal.errors import NotFoundError, StateError
from minimodal.failpoints import NAMES, armed


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs", "en-1")


def age(blobs: Blobs, digest: str, seconds: float) -> None:
    status = blobs.path(digest).stat()
    os.utime(blobs.path(digest), (status.st_atime, status.st_mtime - seconds))


@pytest.mark.parametrize("data", [b"", b"x", b"y" * 3_000_000])
def test_put_get_has_delete(blobs: Blobs, data: bytes) -> None:
    digest = blobs.put(data)
    assert digest == hashlib.sha256(data).hexdigest()
    assert blobs.put(bytearray(data)) == blobs.put(memoryview(data)) == digest
    assert blobs.has(digest)
    assert blobs.get(digest) == data
    assert list(blobs.digests()) == [digest]
    blobs.delete(digest)
    blobs.delete(digest)
    assert not blobs.has(digest)
    with pytest.raises(NotFoundError, match=digest):
        blobs.get(digest)


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_what_is_no_digest_is_no_path(blobs: Blobs, bad: str) -> None:
    for action in (blobs.get, blobs.has, blobs.delete, blobs.path):
        with pytest.raises(ValueError, match="digest"):
            action(bad)


@pytest.mark.parametrize("damage", [b"", b"other content", b"x" * 100])
def test_f73_damaged_content_is_found_and_named(blobs: Blobs, damage: bytes) -> None:
    digest = blobs.put(b"y" * 100)
    blobs.path(digest).write_bytes(damage)
    with pytest.raises(StateError, match=digest):
        blobs.get(digest)


def test_a_truncated_blob_is_healed_by_the_next_put(blobs: Blobs) -> None:
    digest = blobs.put(b"y" * 100)
    os.truncate(blobs.path(digest), 50)
    blobs.put(b"y" * 100)
    assert blobs.get(digest) == b"y" * 100


@pytest.mark.parametrize("point", [name for name in NAMES if name.startswith("blobs.put.")])
def test_a_failed_put_leaves_no_half(blobs: Blobs, point: str) -> None:
    with armed(f"{point}=raise:bad disk"), pytest.raises(StateError, match="bad disk"):
        blobs.put(b"data")
    assert list(blobs.directory.glob("tmp/*")) == []
    assert blobs.get(blobs.put(b"data")) == b"data"


def test_temp_files_of_dead_engines_alone_are_swept(blobs: Blobs) -> None:
    blobs.put(b"x")
    temp = blobs.directory / "tmp"
    for name in ("en-1+aa", "en-dead+bb", "en-live+cc"):
        (temp / name).touch()
    digest = blobs.put(b"wanted")
    os.rename(blobs.path(digest), f"{blobs.path(digest)}.doomed")  # a collector died here
    assert blobs.sweep(lambda engine: engine == "en-live") == 1
    assert sorted(path.name for path in temp.iterdir()) == ["en-1+aa", "en-live+cc"]
    assert blobs.get(digest) == b"wanted"


def test_collect_removes_what_is_old_and_unmentioned(blobs: Blobs) -> None:
    old, young, mentioned = blobs.put(b"old"), blobs.put(b"young"), blobs.put(b"mentioned")
    age(blobs, old, 100)
    age(blobs, mentioned, 100)
    assert blobs.collect(lambda: {mentioned}, grace=50) == 1
    assert set(blobs.digests()) == {young, mentioned}


def test_a_blob_stored_again_while_it_is_collected_stays(blobs: Blobs) -> None:
    other = Blobs(blobs.directory, "en-2")
    digest = blobs.put(b"data")
    age(blobs, digest, 100)

    def referenced() -> set[str]:
        other.put(b"data")  # in another engine, after the candidates were listed
        return set()

    assert blobs.collect(referenced, grace=50) == 0
    assert blobs.get(digest) == b"data"


def test_many_threads_and_a_collector(blobs: Blobs) -> None:
    """What was put is there, whatever a collector does that is told of nothing."""
    other, stop = Blobs(blobs.directory, "en-2"), threading.Event()

    def collect() -> None:
        while not stop.is_set():
            other.collect(lambda: set(), grace=50)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        for number in range(200):
            digest = blobs.put(b"%d" % (number % 5))
            assert blobs.get(digest) == b"%d" % (number % 5)
            age(blobs, digest, 100)
    finally:
        stop.set()
        collector.join()


def test_a_collector_between_the_look_and_the_touch(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may find the file, and change its time when it has been moved away and looked at."""
    digest = blobs.put(b"wanted")
    age(blobs, digest, 100)

    def slow(path: Path) -> None:
        monkeypatch.undo()
        with path.open("rb") as found:
            Blobs(blobs.directory, "en-2").collect(lambda: set(), grace=50)
            os.utime(found.fileno())

    monkeypatch.setattr(os, "utime", slow)
    assert blobs.put(b"wanted") == digest
    assert blobs.get(digest) == b"wanted"


def test_damage_is_told_from_what_may_pass(blobs: Blobs) -> None:
    """A queued call waits where its input cannot be read now, and is lost where it is damaged."""
    digest = blobs.put(b"input")
    blobs.path(digest).chmod(0o600)
    blobs.path(digest).write_bytes(b"other")
    with pytest.raises(Damaged):
        blobs.get(digest)
    blobs.path(digest).unlink()
    blobs.path(digest).mkdir()  # as EMFILE or EIO: an OSError
    with pytest.raises(StateError) as found:
        blobs.get(digest)
    assert not isinstance(found.value, Damaged)
