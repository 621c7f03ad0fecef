"""Volumes: in containers, from here, from two containers at once, and across a restart."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

import minimodal
from minimodal import Volume
from minimodal.config import load_config
from minimodal.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    VolumeError,
)
from minimodal.host import Host
from minimodal.volume_paths import FileEntryType
from tests.conftest import BACKENDS
from tests.leftovers import nothing_left
from tests.objects import functions as f
from tests.objects.conftest import once

pytestmark = pytest.mark.usefixtures("running")


@pytest.fixture(scope="module", params=BACKENDS[1:])  # plain processes cannot mount
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    with nothing_left(request.param == "docker"):
        yield request.param


def content(volume: Volume, path: str) -> bytes:
    return b"".join(volume.read_file(path))


# --- in containers --------------------------------------------------------------------------------


def test_commit_here_is_seen_there_after_reload() -> None:
    assert f.volume_read.remote("seen") is None
    f.volume_write.remote({"seen": "one"})
    assert f.volume_read.remote("seen") is None, "a view is what it was at the container's start"
    assert f.volume_read.remote("seen", reload=True) == "one"
    assert content(f.data, "seen") == b"one"
    with f.data.batch_upload(force=True) as upload:
        upload.put_file(io.BytesIO(b"two"), "seen")
    assert f.volume_read.remote("seen") == "one"
    assert f.volume_read.remote("seen", reload=True) == "two"
    f.data.remove_file("seen")
    assert f.volume_read.remote("seen", reload=True) is None


def test_writers_of_different_files_merge_and_of_the_same_the_last_wins() -> None:
    f.volume_write.remote({"mine": "w", "both": "writer"})
    f.volume_read.remote("mine")
    with f.data.batch_upload(force=True) as upload:
        upload.put_file(io.BytesIO(b"here"), "theirs")
        upload.put_file(io.BytesIO(b"here"), "both")
    f.volume_write.remote({"later": "w"})
    assert content(f.data, "both") == b"here", "an unchanged file is not committed again"
    f.volume_write.remote({"both": "writer again"})
    found = {name: content(f.data, name) for name in ("mine", "theirs", "later", "both")}
    assert found == {"mine": b"w", "theirs": b"here", "later": b"w", "both": b"writer again"}


@pytest.mark.parametrize(
    ("what", "words"), [("file", "/data/open"), ("cwd", "/data/below .the working directory")]
)
def test_reload_with_open_files(what: str, words: str) -> None:
    said = f.volume_reload_while.remote(what)
    assert said.startswith("there are open files preventing the operation: ")
    assert words.partition(" .")[0] in said
    assert words.partition(" .")[2] in said


def test_what_was_written_is_committed_when_the_container_ends_also_on_error(host: Host) -> None:
    ended = anyio.Event()

    def on_event(event: object) -> None:
        if "volume_fails_after_writing" in repr(event) and "container.stopped" in repr(event):
            ended.set()

    host.subscribe(on_event)
    with pytest.raises(ValueError, match="after writing"):
        f.volume_fails_after_writing.remote("kept")
    host_wait(host, ended)
    assert content(f.data, "written-then-failed") == b"kept"


def test_what_exit_writes_is_committed_when_the_pool_shrinks(host: Host) -> None:
    ended = anyio.Event()

    def on_event(event: Any) -> None:
        if event.kind == "container.stopped" and event.name == "WritesOnExit":
            ended.set()

    host.subscribe(on_event)
    f.WritesOnExit().work.remote()
    host_wait(host, ended)
    assert (content(f.data, "at-work"), content(f.data, "at-exit")) == (b"worked", b"left")


def test_a_copy_that_was_left_untouched_is_the_next_containers(host: Host) -> None:
    views = host.engine.objects.volumes.files.views
    of_others = set(views.glob("*.idle-*"))

    def kept() -> set[Path]:
        return set(views.glob("*.idle-*")) - of_others

    with Volume.ephemeral() as volume:
        volume.put_file(io.BytesIO(b"large"), "large")
        volume.put_file(io.BytesIO(b"one"), "other")
        function = f.volume_copy_of.with_options(volumes={"/data": volume})

        def copy_of(name: str = "large", change: str = "") -> tuple[int, str]:
            ended = anyio.Event()

            def on_event(event: Any) -> None:
                if event.kind == "container.stopped" and event.name == "volume_copy_of":
                    ended.set()

            unsubscribe = host.engine.events.subscribe(on_event)
            found: tuple[int, str] = function.remote(name, change)
            host_wait(host, ended)
            unsubscribe()
            return found

        first = copy_of()
        assert copy_of() == first, "the same copy, once more"
        with volume.batch_upload(force=True) as upload:
            upload.put_file(io.BytesIO(b"two"), "other")
        assert copy_of("other")[1] == "two", "with what is committed now"
        assert copy_of() == first
        assert len(kept()) == 1
        for change in ("mode", "come and go"):
            copy_of(change=change)
            assert not kept(), "what was changed in any way is not used again"
        copy_of()
        assert len(kept()) == 1
    assert not kept(), "it goes with its volume"


def test_two_containers_at_once_see_what_the_other_has_committed() -> None:
    calls = [f.volume_meets.spawn("x", "y"), f.volume_meets.spawn("y", "x")]
    assert [call.get() for call in calls] == ["y", "x"]


def test_mounted_after_a_restart_of_the_engine(leaves_nothing: str, scratch: Path) -> None:
    settings = load_config({"backend": leaves_nothing, "home": scratch / f"vr-{leaves_nothing}"})
    volume = Volume.from_name("kept", create_if_missing=True)

    def count() -> int:
        with open("/data/runs", "a+") as file:
            file.write("x")
            file.seek(0)
            return len(file.read())

    for number in (1, 2):
        app = minimodal.App("restarted")
        function = app.function(volumes={"/data": volume}, serialized=True)(count)
        with Host(settings), app.run():
            assert function.remote() == number


def host_wait(host: Host, event: anyio.Event) -> None:
    import asyncio

    async def wait() -> None:
        with anyio.fail_after(20):
            await event.wait()

    asyncio.run_coroutine_threadsafe(wait(), host.loop).result()


def test_read_only_and_sub_path() -> None:
    f.volume_write.remote({"a/one": "1", "b": "2"})
    said, names = f.volume_mounts.remote()
    assert "Read-only" in said
    assert names == ["one"]


@pytest.mark.parametrize("what", ["fifo", "link", "up"])
def test_f71_f72_what_a_volume_cannot_hold(what: str) -> None:
    said = f.volume_odd.remote(what)
    assert said.startswith("VolumeError: nothing was committed")
    assert f"/data/odd-{what}" in said
    assert f"odd-{what}" not in [entry.path for entry in f.data.listdir()]


def test_methods_inside_a_container() -> None:
    assert f.volume_object_ops.remote() == ["from inside", "inside.txt"]


def test_f74_deleted_and_renamed_while_mounted() -> None:
    volume = Volume.from_name("doomed", create_if_missing=True)
    with volume.batch_upload() as upload:
        upload.put_file(io.BytesIO(b"whole"), "held")
    call = f.volume_holds.with_options(volumes={"/data": volume}).spawn(volume)
    f.started.get(timeout=30)
    Volume.rename("doomed", "still-doomed")
    with pytest.raises(VolumeError, match="in use by ct-"):
        Volume.delete("still-doomed")
    Volume.delete("still-doomed", force=True)
    f.release.put(1)
    assert call.get() == "whole"
    with pytest.raises(NotFoundError):
        volume.listdir()


@once
def test_commit_and_reload_are_for_containers() -> None:
    for method in (f.data.commit, f.data.reload):
        with pytest.raises(InvalidError, match="for a container that mounts it"):
            method()


@once
def test_plain_processes_say_what_to_use_instead() -> None:
    app = minimodal.App("plain")
    function = app.function(volumes={"/data": f.data}, serialized=True)(lambda: None)
    with Host(load_config({"backend": "process"})), app.run():
        with pytest.raises(ConflictError, match="--backend docker or --backend bubblewrap"):
            function.remote()


# --- from here ------------------------------------------------------------------------------------


@once
def test_uploads(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "a.txt").write_text("a")
    (tree / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (tree / "sub" / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("sub/run.sh")
    with Volume.ephemeral() as volume:
        with volume.batch_upload() as upload:
            upload.put_directory(tree, "/")
            upload.put_file(tree / "a.txt", "/copied/")
            upload.put_file(str(tree / "a.txt"), "b.txt")
        found = {entry.path: entry.type for entry in volume.iterdir()}
        assert found == {
            "a.txt": FileEntryType.FILE,
            "b.txt": FileEntryType.FILE,
            "copied": FileEntryType.DIRECTORY,
            "copied/a.txt": FileEntryType.FILE,
            "link": FileEntryType.SYMLINK,
            "sub": FileEntryType.DIRECTORY,
            "sub/empty": FileEntryType.DIRECTORY,
            "sub/run.sh": FileEntryType.FILE,
        }
        with pytest.raises(FileExistsError, match=r"a\.txt"), volume.batch_upload() as upload:  # noqa: PT012  # its end raises
            upload.put_file(io.BytesIO(b"new"), "new")
            upload.put_file(io.BytesIO(b"b"), "a.txt")
        assert "new" not in [entry.path for entry in volume.listdir()], "all or nothing"
        with pytest.raises(FileNotFoundError), volume.batch_upload() as upload:
            upload.put_file(tree / "absent", "x")
        (tree / "out").symlink_to("/etc/passwd")
        with pytest.raises(InvalidError, match="leads out"), volume.batch_upload() as upload:
            upload.put_directory(tree, "/again")
        with pytest.raises(RuntimeError, match="nothing"), volume.batch_upload() as upload:  # noqa: PT012  # its end raises
            upload.put_file(io.BytesIO(b"x"), "unsent")
            raise RuntimeError("nothing is uploaded")
        assert len(list(volume.iterdir())) == 8


@once
def test_a_file_that_is_removed_before_the_upload(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    with Volume.ephemeral() as volume:
        with pytest.raises(FileNotFoundError), volume.batch_upload() as upload:  # noqa: PT012  # its end raises
            upload.put_file(tmp_path / "a", "a")
            (tmp_path / "a").unlink()
        assert volume.listdir() == []


@once
def test_reading(tmp_path: Path) -> None:
    large = os.urandom(9_000_000)
    with Volume.ephemeral() as volume:
        volume.put_file(io.BytesIO(large), "dir/large")
        pieces = list(volume.read_file("dir/large"))
        assert len(pieces) > 1
        assert b"".join(pieces) == large
        file = io.BytesIO()
        assert volume.read_file_into_fileobj("dir/large", file) == len(large)
        volume.get_file("dir/large", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == file.getvalue() == large
        assert volume.list_files() == ["dir/large"]
        (entry,) = volume.listdir("dir/large")
        assert entry.size == len(large)
        assert entry.mtime > 1e9
        volume.put_file(io.BytesIO(b""), "empty")
        assert content(volume, "empty") == b""
        for wrong in ("absent", "dir/absent"):
            with pytest.raises(FileNotFoundError, match="absent"):
                content(volume, wrong)
            with pytest.raises(FileNotFoundError, match="absent"):
                volume.listdir(wrong)
        with pytest.raises(IsADirectoryError):
            content(volume, "dir")


@once
def test_removing_and_copying() -> None:
    with Volume.ephemeral() as volume:
        for path in ("a", "d/one", "d/two"):
            volume.put_file(io.BytesIO(path.encode()), path)
        volume.copy_files(["a"], "b")
        volume.copy_files(["a", "b"], "d")
        volume.copy_files(["d"], "e", recursive=True)
        assert content(volume, "d/b") == b"a"
        assert [entry.path for entry in volume.listdir("e")] == ["e/a", "e/b", "e/one", "e/two"]
        with pytest.raises(IsADirectoryError, match="recursive"):
            volume.copy_files(["d"], "f")
        with pytest.raises(NotADirectoryError):
            volume.copy_files(["a", "b"], "nowhere")
        with pytest.raises(FileNotFoundError):
            volume.copy_files(["absent"], "f")
        with pytest.raises(IsADirectoryError, match="recursive"):
            volume.remove_file("d")
        volume.remove_file("d", recursive=True)
        volume.remove_file("a")
        with pytest.raises(FileNotFoundError):
            volume.remove_file("a")
        assert volume.list_files() == ["b", "e/a", "e/b", "e/one", "e/two"]


@once
def test_names() -> None:
    with pytest.raises(NotFoundError, match="create_if_missing"):
        Volume.from_name("absent").listdir()
    volume = Volume.from_name("named", create_if_missing=True)
    volume.put_file(io.BytesIO(b"x"), "x")
    assert "named" in [each.name for each in Volume.objects.list()]
    with pytest.raises(AlreadyExistsError):
        Volume.objects.create("named")
    Volume.objects.create("other")
    with pytest.raises(AlreadyExistsError):
        Volume.rename("named", "other")
    Volume.rename("named", "renamed")
    assert content(Volume.from_name("renamed", version=2), "x") == b"x"
    assert volume.info().name == "renamed"
    assert pickle.loads(pickle.dumps(Volume.from_id(volume.object_id))).list_files() == ["x"]
    for name in ("renamed", "other"):
        Volume.objects.delete(name)
    with pytest.raises(NotFoundError):
        volume.listdir()
    with pytest.raises(RuntimeError, match="from_name"):
        Volume()


async def async_use() -> list[object]:
    async with Volume.ephemeral() as volume:
        async with volume.batch_upload() as upload:
            upload.put_file(io.BytesIO(b"async"), "a")
        pieces = [piece async for piece in volume.read_file("a")]
        return [pieces, [entry.path async for entry in volume.iterdir()]]


@once
def test_awaited() -> None:
    assert anyio.run(async_use) == [[b"async"], ["a"]]


@once
def test_survives_a_restart(scratch: Path) -> None:
    settings = load_config({"backend": "process", "home": scratch / "volumes"})
    volume = Volume.from_name("kept", create_if_missing=True)
    with Host(settings):
        volume.put_file(io.BytesIO(b"kept"), "a")
        with Volume.ephemeral() as gone:
            gone.put_file(io.BytesIO(b"x"), "a")
    with Host(settings):
        assert content(volume, "a") == b"kept"
    assert [path.name[:3] for path in (scratch / "volumes/data/volumes").glob("vo-*")] == ["vo-"]
