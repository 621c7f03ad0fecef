"""F71, F72: paths and links that lead out of a volume, and files that are none.

From inside a container: tests/objects/test_volume.py.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
from contextlib import ExitStack

import pytest

from minimodal import Volume
from minimodal.config import load_config
from minimodal.engine.beneath import Beneath
from minimodal.engine.volume_store import VolumeStore
from minimodal.errors import InvalidError, VolumeError
from minimodal.home import Home
from minimodal.host import Host
from tests.faults.views import Views, committed

# --- F71: traversal and links ---------------------------------------------------------------------

OUT = ["../x", "a/../../x", "a/../b", "..", "nul\0"]


@pytest.mark.parametrize("path", OUT)
def test_f71_paths_that_lead_out(own_home: Home, path: str) -> None:
    with Host(load_config({"backend": "process", "home": own_home.data.parent})):
        with Volume.ephemeral() as volume:
            volume.put_file(io.BytesIO(b"x"), "a")
            for use in (
                lambda: list(volume.read_file(path)),
                lambda: volume.listdir(path),
                lambda: volume.remove_file(path),
                lambda: volume.put_file(io.BytesIO(b"x"), path),
                lambda: volume.copy_files(["a"], path),
                lambda: volume.copy_files([path], "b"),
                lambda: volume.with_mount_options(sub_path=path),
            ):
                with pytest.raises(InvalidError):
                    use()
            assert volume.list_files() == ["a"]


def test_f71_absolute_paths_are_the_volumes_own(own_home: Home) -> None:
    with Host(load_config({"backend": "process", "home": own_home.data.parent})):
        with Volume.ephemeral() as volume:
            with pytest.raises(FileNotFoundError):
                list(volume.read_file("/etc/passwd"))
            volume.put_file(io.BytesIO(b"ours"), "/etc/passwd")
            assert list(volume.read_file("etc/passwd")) == [b"ours"]


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "/data/x"])
def test_f71_links_out(views: Views, store: VolumeStore, target: str) -> None:
    view = views.new()
    (view.files / "fine").write_text("x")
    (view.files / "inside").symlink_to("fine")
    (view.files / "out").symlink_to(target)
    with pytest.raises(VolumeError, match="/data/out is a link out of the volume"):
        view.commit(lenient=False)
    assert store.tree() == {}
    assert view.commit(lenient=True) == [f"/data/out is a link out of the volume, to {target}"]
    assert sorted(store.tree()) == ["fine", "inside"]


def test_f71_hard_link_to_a_host_file(views: Views, store: VolumeStore, own_home: Home) -> None:
    host_file = own_home.data / "host-file"
    host_file.write_text("host bytes")
    view = views.new()
    os.link(host_file, view.files / "stolen")
    (view.files / "two").write_text("names")
    os.link(view.files / "two", view.files / "of-it")
    with pytest.raises(VolumeError, match="/data/stolen is a hard link to a file outside"):
        view.commit(lenient=False)
    view.commit(lenient=True)
    assert committed(store) == {"two": b"names", "of-it": b"names"}


def test_f71_swapped_between_check_and_use(views: Views, own_home: Home) -> None:
    """What a container does while the engine is between looking and opening."""
    (own_home.data / "victim").mkdir()
    (own_home.data / "victim" / "file").write_text("host bytes")
    view = views.new()
    (view.files / "dir").mkdir()
    (view.files / "dir" / "file").write_text("ours")
    with ExitStack() as stack:
        beneath = Beneath(view.files)
        stack.callback(beneath.close)
        assert "dir/file" in [path for path, _ in beneath.walk()]
        shutil.rmtree(view.files / "dir")
        (view.files / "dir").symlink_to(own_home.data / "victim")
        with pytest.raises(OSError, match="dir"), beneath.opened("dir/file"):
            pass
        beneath.remove("dir/file")
        staged = own_home.data / "staged"
        staged.write_text("from the store")
        beneath.put(staged, "dir/file")
    assert (own_home.data / "victim" / "file").read_text() == "host bytes"
    assert (view.files / "dir" / "file").read_text() == "from the store"
    (view.files / "dir" / "file").unlink()
    (view.files / "dir" / "file").symlink_to(own_home.data / "victim" / "file")
    with ExitStack() as stack:
        beneath = Beneath(view.files)
        stack.callback(beneath.close)
        assert stack.enter_context(beneath.opened("dir/file")) is None


# --- F72: odd files -------------------------------------------------------------------------------


def test_f72_fifo_socket_device(views: Views, store: VolumeStore) -> None:
    view = views.new()
    os.mkfifo(view.files / "fifo")
    (view.files / "file").write_text("x")
    listener = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    try:
        os.chdir(view.files)
        listener.bind("sock")
    finally:
        os.chdir(here)
    made = 2
    try:
        os.mknod(view.files / "device", 0o600 | 0o020000, os.makedev(1, 3))
        made += 1
    except PermissionError:
        pass  # not root: then no container is either
    try:
        with pytest.raises(VolumeError, match=r"/data/(fifo|sock|device) is a"):
            view.commit(lenient=False)
        assert len(view.commit(lenient=True)) == made
        assert sorted(store.tree()) == ["file"]
    finally:
        listener.close()


def test_f72_what_was_refused_is_committed_by_the_next_try(
    views: Views, store: VolumeStore
) -> None:
    view = views.new()
    (view.files / "kept").write_text("old")
    view.commit(lenient=False)
    (view.files / "kept").write_text("new")
    os.mkfifo(view.files / "odd")
    with pytest.raises(VolumeError, match="odd is a FIFO"):
        view.commit(lenient=False)
    assert view.commit(lenient=True) == ["/data/odd is a FIFO, which no volume holds"]
    assert store.contents.chunk(store.tree()["kept"].digest, 0, "kept") == b"new"  # type: ignore[union-attr]  # a File


def test_f72_names(views: Views, store: VolumeStore) -> None:
    names = [b"new\nline", b"\xff\xfe", b"n" * 255, "ümlaut".encode(), b" ", b"-rf"]
    view = views.new()
    for name in names:
        with open(os.path.join(os.fsencode(view.files), name), "wb") as file:
            file.write(name)
    (view.files / "empty" / "below").mkdir(parents=True)
    view.commit(lenient=False)
    other = views.new()
    found = {name for name in os.listdir(os.fsencode(other.files)) if name != b"empty"}
    assert found == set(names)
    assert (other.files / "empty" / "below").is_dir()
    assert {os.fsencode(path) for path in committed(store)} == set(names)


def test_f72_a_sparse_terabyte(views: Views, store: VolumeStore) -> None:
    view = views.new()
    with open(view.files / "sparse", "wb") as file:
        try:
            file.truncate(1 << 40)
        except OSError as error:
            pytest.skip(f"this file system has no file of 1 TB: {error.strerror}")
        file.seek(1 << 39)
        file.write(b"in the middle")
    view.commit(lenient=False)
    copy = views.new().files / "sparse"
    assert copy.stat().st_size == 1 << 40
    assert copy.stat().st_blocks * 512 < 10 << 20
    with open(copy, "rb") as file:
        file.seek(1 << 39)
        assert file.read(13) == b"in the middle"
