"""The host's directories under a sandbox's, where something is mounted inside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import minimodal
from minimodal.backends import sandbox_plan
from minimodal.backends.host_tree import has_hidden_mounts, overlays
from minimodal.backends.rootfs import RootFiles
from minimodal.config import load_config
from minimodal.host import Host


@pytest.mark.bubblewrap
def test_a_start_is_tried_again_when_something_of_the_host_went_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = sandbox_plan.root_arguments
    gone = [["--ro-bind", "/gone-meanwhile", "/gone-meanwhile"]]

    def with_what_went(files: RootFiles) -> list[str]:
        return [*real(files), *(gone.pop() if gone else ())]

    app = minimodal.App("again")
    function = app.function(serialized=True)(lambda: "fine")
    with Host(load_config({"backend": "bubblewrap"})), app.run():
        monkeypatch.setattr(sandbox_plan, "root_arguments", with_what_went)
        assert function.remote() == "fine"
    assert not gone


def bind(place: str, sources: Sequence[str]) -> list[str]:
    return ["--ro-bind", sources[0], place]


def test_mounts_that_nobody_may_look_at_are_left_out(tmp_path: Path) -> None:
    """A Docker engine's layers come and go; a bind that held them failed when one went meanwhile."""
    (tmp_path / "lib" / "docker" / "overlay2" / "one" / "merged").mkdir(parents=True)
    (tmp_path / "lib" / "dpkg").mkdir()
    (tmp_path / "lib" / "docker").chmod(0o710)
    mounts = [str(tmp_path / "lib/docker/overlay2/one/merged")]
    assert has_hidden_mounts(str(tmp_path), mounts)
    made = dict(overlays(str(tmp_path), [], mounts, bind))
    assert made[f"{tmp_path}/lib/docker"] == ["--dir", f"{tmp_path}/lib/docker"]
    assert made[f"{tmp_path}/lib/dpkg"] == [
        "--ro-bind",
        f"{tmp_path}/lib/dpkg",
        f"{tmp_path}/lib/dpkg",
    ]
    assert not [path for path in made if "overlay2" in path]


def test_other_mounts_are_seen_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "hosts").touch()
    (tmp_path / "data").mkdir()
    mounts = [str(tmp_path / "hosts"), str(tmp_path / "data")]
    assert not has_hidden_mounts(str(tmp_path), mounts)
    assert dict(overlays(str(tmp_path), [], mounts, bind))[f"{tmp_path}/data"][0] == "--ro-bind"
