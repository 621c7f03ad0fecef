"""F68 to F74: crashes in a commit, full disks, many writers, links, odd files, damage, deletion.

What is in reach of a container (links, FIFOs, commits at its end) is also tested from inside one, in
tests/objects/test_volume.py.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from minimodal import Volume
from minimodal.config import load_config
from minimodal.engine.beneath import Beneath
from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_store import VolumeStore
from minimodal.engine.volume_tree import File
from minimodal.engine.volume_view import View, make_view
from minimodal.engine_lock import hold_engine_lock
from minimodal.errors import InvalidError, VolumeError
from minimodal.home import Home
from minimodal.host import Host

ENGINE = "en-00000000000000ff"


@pytest.fixture
def files(own_home: Home) -> Iterator[VolumeFiles]:
    with hold_engine_lock(own_home, ENGINE):
        yield VolumeFiles(own_home, ENGINE)


@pytest.fixture
def store(files: VolumeFiles) -> VolumeStore:
    return files.store(files.create("v", exist_ok=False).id)


class Views:
    """Views as containers have them, without the containers."""

    def __init__(self, files: VolumeFiles, store: VolumeStore) -> None:
        self._files, self._store, self._count = files, store, 0

    def new(self, *, read_only: bool = False, prefix: str = "") -> View:
        self._count += 1
        directory = self._files.views / f"{ENGINE}.ct-{self._count}.0.{self._store.id}"
        return make_view(self._store, directory, prefix, "/data", read_only)


@pytest.fixture
def views(files: VolumeFiles, store: VolumeStore) -> Views:
    return Views(files, store)


def committed(store: VolumeStore) -> dict[str, bytes]:
    """All that a reader would be given."""
    return {path: read(store, path) for path, e in store.tree().items() if isinstance(e, File)}


def read(store: VolumeStore, path: str) -> bytes:
    entry = store.tree()[path]
    assert isinstance(entry, File)
    chunks = -(-entry.size // (4 << 20))
    return b"".join(store.contents.chunk(entry.digest, index, path) for index in range(chunks))


# --- F68: a crash at each step of a commit --------------------------------------------------------

COMMIT = """
import sys
from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_view import make_view
from minimodal.failpoints import armed
from minimodal.home import open_home
home, step = open_home(), sys.argv[1]
files = VolumeFiles(home, "en-00000000000000aa")
store = files.store(files.find("v").id)
view = make_view(store, files.views / f"en-00000000000000aa.ct-1.0.{store.id}", "", "/data", False)
(view.files / "a").write_text("new")
(view.files / "b").write_bytes(b"n" * 5_000_000)
(view.files / "gone").unlink()
with armed(f"*=kill@{step}"):
    view.commit(lenient=False)
"""
OLD = {"a": b"old", "b": b"old", "gone": b"old", "same": b"same"}
NEW = {"a": b"new", "b": b"n" * 5_000_000, "same": b"same"}


def fill(view: View, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (view.files / name).write_bytes(data)


def test_f68_killed_at_each_step(own_home: Home, views: Views, store: VolumeStore) -> None:
    env = {**os.environ, "MINIMODAL_HOME": str(own_home.data.parent)}
    seen = []
    for step in range(1, 40):
        view = views.new()
        shutil.rmtree(view.files)
        view.files.mkdir()
        fill(view, OLD)
        view.commit(lenient=False)
        view.remove()
        command = [sys.executable, "-c", COMMIT, str(step)]
        code = subprocess.run(command, env=env, timeout=30, check=False).returncode
        fresh = VolumeStore(store.directory)
        found = committed(fresh)
        assert found in (OLD, NEW), f"after a kill at step {step}"
        seen.append(found == NEW)
        VolumeFiles(own_home, ENGINE).sweep()
        assert committed(VolumeStore(store.directory)) == found
        assert leftovers(store) == []
        if code == 0:
            break
    else:
        pytest.fail("no commit came to its end")
    assert step > 6, "there are steps to be killed at"
    assert seen == sorted(seen), "old before the swap, new from then on"
    assert seen[-1]
    assert not seen[0]


def leftovers(store: VolumeStore) -> list[str]:
    """Temporary files, views of dead engines, and objects that no snapshot names."""
    root = store.directory.parent
    found = [str(path) for path in root.rglob("*.tmp")]
    found += [str(path) for path in (root / ".views").iterdir()]
    named = {
        entry.digest
        for path in (store.directory / "snapshots").iterdir()
        for entry in store._load(path.name).values()
        if isinstance(entry, File)
    }
    return found + [str(path) for digest, path in store.contents.names() if digest not in named]


# --- F69: a full disk -----------------------------------------------------------------------------

FULL = """
import os, subprocess
from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_uploads import Uploads
from minimodal.engine.volume_view import make_view
from minimodal.errors import VolumeError
from minimodal.home import open_home
home = open_home()
home.volumes.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home.volumes)], check=True)
files = VolumeFiles(home, "en-00000000000000aa")
store = files.store(files.create("v", exist_ok=False).id)
view = make_view(store, files.views / f"en-00000000000000aa.ct-1.0.{store.id}", "", "/data", False)
(view.files / "small").write_text("old")
view.commit(lenient=False)
before = store.tree()
(view.files / "small").write_text("new")
(view.files / "large").write_bytes(os.urandom(600_000))
try:
    view.commit(lenient=False)
except VolumeError as error:
    print("commit:", error)
uploads = Uploads(files)
upload = uploads.begin(store.id)
try:
    for number in range(10):
        uploads.piece(upload, number, 0, os.urandom(100_000))
except VolumeError as error:
    print("upload:", error)
uploads.abort(upload)
print("unchanged:", store.tree() == before and store._load(store._head()) == before)
print("left:", sorted(p.name for p in home.volumes.rglob("*.tmp")), os.listdir(files.uploads))
(view.files / "large").unlink()
view.commit(lenient=False)
print("afterwards:", store.contents.chunk(store.tree()["small"].digest, 0, "small"))
"""


def test_f69_disk_full(own_home: Home) -> None:
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False)
    if probe.returncode:
        pytest.skip("no private mount can be made here")
    env = {**os.environ, "MINIMODAL_HOME": str(own_home.data.parent)}
    command = ["unshare", "-rm", sys.executable, "-c", FULL]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == 5, done.stderr
    assert "no space left" in lines[0]
    assert "bytes free" in lines[0]
    assert "no space left" in lines[1]
    assert lines[2:] == ["unchanged: True", "left: [] []", "afterwards: b'new'"]


# --- F70: many writers, and readers meanwhile -----------------------------------------------------


def test_f70_writers_merge_and_readers_see_no_mix(views: Views, store: VolumeStore) -> None:
    rounds, failures = 25, []
    writers = [views.new() for _ in range(8)]
    readers = [views.new() for _ in range(4)]
    over = threading.Event()

    def write(number: int) -> None:
        view = writers[number]
        for each in range(rounds):
            token = f"{number}-{each}"
            for name in (f"own-{number}", "both-a", "both-b"):
                (view.files / name).write_text(token)
            view.commit(lenient=False)

    def look(number: int) -> None:
        view = readers[number]
        while not over.is_set():
            view.reload()
            found = {path.name: path.read_text() for path in view.files.iterdir()}
            if found.get("both-a") != found.get("both-b"):
                failures.append(found)

    def guarded(work: object, number: int) -> None:
        try:
            work(number)  # type: ignore[operator]
        except BaseException as error:
            failures.append({"error": repr(error)})

    threads = [threading.Thread(target=guarded, args=(write, n)) for n in range(8)]
    looking = [threading.Thread(target=guarded, args=(look, n)) for n in range(4)]
    for thread in threads + looking:
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    for thread in looking:
        thread.join()
    assert failures == []
    found = committed(store)
    assert {name: found[name].decode() for name in found if name.startswith("own")} == {
        f"own-{number}": f"{number}-{rounds - 1}" for number in range(8)
    }
    assert found["both-a"] == found["both-b"]


def test_f70_a_file_is_seen_as_it_was_at_the_reload(views: Views) -> None:
    writer, reader = views.new(), views.new()
    (writer.files / "x").write_text("one")
    writer.commit(lenient=False)
    assert list(reader.files.iterdir()) == []
    reader.reload()
    with open(reader.files / "x") as held:
        (writer.files / "x").write_text("two")
        writer.commit(lenient=False)
        reader.reload()
        assert held.read() == "one", "a file that is open stays what it was"
    assert (reader.files / "x").read_text() == "two"


def test_f70_rewritten_with_the_same_size_and_time(views: Views, store: VolumeStore) -> None:
    view = views.new()
    (view.files / "x").write_text("one")
    view.commit(lenient=False)
    before = (view.files / "x").stat()
    (view.files / "x").write_text("two")
    os.utime(view.files / "x", ns=(before.st_mtime_ns, before.st_mtime_ns))
    view.commit(lenient=False)
    assert committed(store) == {"x": b"two"}


def test_f70_directories_and_files_in_each_others_way(views: Views, store: VolumeStore) -> None:
    one, other = views.new(), views.new()
    (one.files / "x").write_text("a file")
    (other.files / "x").mkdir()
    (other.files / "x" / "below").write_text("in a directory")
    one.commit(lenient=False)
    other.commit(lenient=False)
    assert committed(store) == {"x/below": b"in a directory"}
    one.reload()
    assert (one.files / "x" / "below").read_text() == "in a directory"
    shutil.rmtree(one.files / "x")
    (one.files / "x").write_text("a file again")
    one.commit(lenient=False)
    other.reload()
    assert (other.files / "x").read_text() == "a file again"


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


# --- F73: damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [100, 9_000_000])
def test_f73_a_flipped_byte(views: Views, store: VolumeStore, size: int) -> None:
    view = views.new()
    (view.files / "x").write_bytes(os.urandom(size))
    view.commit(lenient=False)
    entry = store.tree()["x"]
    assert isinstance(entry, File)
    path = next(p for digest, p in store.contents.names() if p.name == entry.digest)
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(size - 10)
        byte = file.read(1)
        file.seek(size - 10)
        file.write(bytes([byte[0] ^ 1]))
    for use in (lambda: read(store, "x"), views.new, lambda: views.new(read_only=True)):
        with pytest.raises(VolumeError, match=f"x is damaged: .* digest {entry.digest}"):
            use()
    path.unlink()
    with pytest.raises(VolumeError, match=f"{entry.digest} is gone"):
        read(store, "x")


def test_f73_a_changed_snapshot(views: Views, store: VolumeStore) -> None:
    view = views.new()
    (view.files / "x").write_text("x")
    view.commit(lenient=False)
    snapshot = store.directory / "snapshots" / (store.directory / "head").read_text()
    snapshot.write_bytes(snapshot.read_bytes().replace(b'"x"', b'"y"'))
    with pytest.raises(VolumeError, match="is damaged"):
        VolumeStore(store.directory).tree()


# --- F74: deleted while mounted; see also test_volume.py ------------------------------------------


def test_f74_deleted_while_mounted(files: VolumeFiles, views: Views, store: VolumeStore) -> None:
    view = views.new()
    (view.files / "x").write_text("whole")
    with pytest.raises(VolumeError, match="in use by ct-1"):
        files.remove(store.id)
    files.remove(store.id, force=True)
    assert (view.files / "x").read_text() == "whole"
    with pytest.raises(Exception, match="deleted"):
        view.commit(lenient=False)
    view.remove()
    assert list(Path(files.directory).glob("vo-*")) == []


def test_f74_a_dead_engines_views_do_not_hold_a_volume(own_home: Home, store: VolumeStore) -> None:
    other = VolumeFiles(own_home, "en-00000000000000bb")
    directory = other.views / f"en-00000000000000bb.ct-9.0.{store.id}"
    make_view(store, directory, "", "/data", False)
    VolumeFiles(own_home, ENGINE).sweep()
    assert not directory.exists()
    VolumeFiles(own_home, ENGINE).remove(store.id)
