"""`snapshot_filesystem`: what a sandbox left in its files is where others start."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from minimodal import Image, Sandbox
from minimodal.backends.sandbox_files import unpack
from minimodal.errors import ConflictError, ImageBuildError

PREPARE = """
set -e
mkdir -p $HOME/made/deep; echo kept > $HOME/made/deep/file; chmod 750 $HOME/made/deep/file
ln -s deep/file $HOME/made/link; echo run > $HOME/made/x; rm $HOME/made/x
"""
SHOW = "cat $HOME/made/link; stat -c %a $HOME/made/deep/file; ls $HOME/made"


def test_a_snapshot_is_an_image(backend: str) -> None:
    image = Image.debian_slim().env({"SET": "by the image"})
    box = Sandbox.create(image=image, env={"MINE": "alone"})
    if backend == "process":
        with pytest.raises(ConflictError, match="--backend"):
            box.snapshot_filesystem()
        box.terminate()
        return
    assert box.exec("sh", "-c", PREPARE).wait() == 0
    first = box.snapshot_filesystem()
    box.exec("sh", "-c", "echo later > $HOME/made/deep/file").wait()
    box.terminate()

    second = Sandbox.create(image=first)
    assert second.exec("sh", "-c", SHOW).stdout.read() == "kept\n750\ndeep\nlink\n"
    variables = second.exec("sh", "-c", "echo $SET/$MINE").stdout.read()
    assert variables == "by the image/\n"
    second.exec("sh", "-c", "rm $HOME/made/link; echo two > $HOME/made/two").wait()
    third = Sandbox.create(image=second.snapshot_filesystem())
    second.terminate()
    assert third.exec("sh", "-c", "ls $HOME/made").stdout.read() == "deep\ntwo\n"
    third.terminate()


def test_a_snapshot_that_is_gone(backend: str) -> None:
    from minimodal.layers import Snapshot
    from minimodal.recipe import Ready

    if backend == "process":
        pytest.skip("plain processes have no snapshots")
    gone = Image.debian_slim()._step(Ready(Snapshot("im-gone")))
    with pytest.raises(ImageBuildError, match="snapshot im-gone is gone"):
        Sandbox.create(image=gone)


@pytest.mark.parametrize(
    "members",
    [
        [("../out", b"x")],
        [("/etc/out", b"x")],
        [("link", "/tmp"), ("link/out", b"x")],
        [("root/a", b"1"), ("root/a", b"2")],
    ],
)
def test_what_a_hostile_sandbox_packs_stays_inside(
    members: list[tuple[str, object]], tmp_path: Path
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                assert isinstance(content, bytes)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    archive.seek(0)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "root").mkdir()
    with pytest.raises(ValueError, match=r"is no path|no directory|twice"):
        unpack(archive, tmp_path / "root", None)
    assert not (tmp_path / "out").exists()
