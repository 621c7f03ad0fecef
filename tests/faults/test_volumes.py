"""F68 to F70, F73, F74: crashes in a commit, full disks, many writers, damage, deletion.

What is in reach of a container (links, FIFOs, commits at its end) is also tested from inside one, in
tests/objects/test_volume.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minimodal import Volume
from minimodal.config import load_config
from minimodal.engine.volume_files import VolumeFiles
from minimodal.engine.volume_store import VolumeStore
from minimodal.engine.volume_tree import File
from minimodal.engine.volume_view import View, make_view
from minimodal.errors import VolumeError
from minimodal.home import Home
from minimodal.host import Host
from tests.faults.views import ENGINE, Views, committed, read

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


def test_f73_a_changed_snapshot(views: Views, store: VolumeStore, own_home: Home) -> None:
    view = views.new()
    (view.files / "x").write_text("x")
    view.commit(lenient=False)
    snapshot = store.directory / "snapshots" / (store.directory / "head").read_text()
    snapshot.write_bytes(snapshot.read_bytes().replace(b'"x"', b'"y"'))
    with pytest.raises(VolumeError, match="is damaged"):
        VolumeStore(store.directory).tree()
    with Host(load_config({"backend": "process", "home": own_home.data.parent})):
        with pytest.raises(VolumeError, match="is damaged"):
            Volume.from_name("v").listdir()
        with Volume.ephemeral() as other:
            assert other.listdir() == []


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
