"""What is bound of mounts that lie in one another."""

from __future__ import annotations

from pathlib import Path

from minimodal.backends.mounts import ResolvedMount, spread


def test_a_link_in_a_mount_that_is_taken_apart_leads_to_nothing_outside(tmp_path: Path) -> None:
    volume, other = tmp_path / "volume", tmp_path / "other"
    for directory in (volume, other):
        directory.mkdir()
    (volume / "file").write_text("ours")
    (volume / "inside").symlink_to("file")
    (volume / "outside").symlink_to(other)
    (volume / "dangling").symlink_to("nothing")
    mounts = [
        ResolvedMount(volume, "/data", True, "volume"),
        ResolvedMount(other, "/data/below", True, "volume"),
    ]
    assert {mount.target: mount.source for mount in spread(mounts)} == {
        "/data/file": volume / "file",
        "/data/inside": volume / "file",
        "/data/below": other,
    }
