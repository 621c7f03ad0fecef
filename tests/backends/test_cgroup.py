"""Where groups are made and what is written into them: both versions, from text and a fake tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from minimodal.backends.cgroup import Group, Groups, Hierarchy, find_hierarchies, settings
from minimodal.home import open_home
from minimodal.types import Resources

ALL = frozenset({"memory", "cpu", "pids"})


def mount(path: Path, kind: str, options: str, root: str = "/") -> str:
    return f"30 20 0:26 {root} {path} rw,nosuid - {kind} {kind} rw,{options}"


def test_version_1_takes_the_group_that_we_are_in(tmp_path: Path) -> None:
    for name in ("memory/session/7", "cpu,cpuacct", "pids"):
        (tmp_path / name).mkdir(parents=True)
    mounts = "\n".join(
        [
            mount(tmp_path / "memory", "cgroup", "memory"),
            mount(tmp_path / "cpu,cpuacct", "cgroup", "cpu,cpuacct"),
            mount(tmp_path / "pids", "cgroup", "pids"),
            mount(tmp_path / "unified", "cgroup2", "nsdelegate"),
        ]
    )
    own = "4:memory:/session/7\n2:cpu,cpuacct:/not/shown/here\n1:pids:/\n0::/\n"
    found = find_hierarchies(mounts, own, probe=False)
    assert {tuple(h.controllers): h.path for h in found} == {
        ("memory",): tmp_path / "memory/session/7",
        ("cpu",): tmp_path / "cpu,cpuacct",
        ("pids",): tmp_path / "pids",
    }


def test_version_1_below_a_containers_own_root(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    mounts = mount(tmp_path, "cgroup", "pids", root="/docker/abc")
    (found,) = find_hierarchies(mounts, "1:pids:/docker/abc/inner\n", probe=False)
    assert found.path == tmp_path / "inner"


def test_version_2_goes_up_to_where_children_have_controllers(tmp_path: Path) -> None:
    scope = tmp_path / "user.slice" / "user-1.slice" / "session-3.scope"
    scope.mkdir(parents=True)
    (scope / "cgroup.subtree_control").write_text("")
    (scope.parent / "cgroup.subtree_control").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpuset cpu io memory pids\n")
    own = "0::/user.slice/user-1.slice/session-3.scope\n"
    mounts = mount(tmp_path, "cgroup2", "nsdelegate")
    assert find_hierarchies(mounts, own, probe=False) == (Hierarchy(2, scope.parent, ALL),)
    (scope.parent / "cgroup.subtree_control").write_text("")
    assert find_hierarchies(mounts, own, probe=False) == (Hierarchy(2, tmp_path, ALL),)


def test_nowhere_without_a_right_to_write(tmp_path: Path) -> None:
    mounts = mount(tmp_path / "missing", "cgroup2", "x")
    assert find_hierarchies(mounts, "0::/\n") == ()
    assert find_hierarchies("", "") == ()


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            1,
            {
                "memory.limit_in_bytes": str(64 << 20),
                "memory.memsw.limit_in_bytes": str(64 << 20),
                "cpu.shares": "512",
                "cpu.cfs_period_us": "100000",
                "cpu.cfs_quota_us": "150000",
                "pids.max": "50",
            },
        ),
        (
            2,
            {
                "memory.max": str(64 << 20),
                "memory.swap.max": "0",
                "cpu.weight": "50",
                "cpu.max": "150000 100000",
                "pids.max": "50",
            },
        ),
    ],
)
def test_settings(version: int, expected: dict[str, str]) -> None:
    resources = Resources(cpu=0.5, cpu_limit=1.5, memory_limit=64, pids_limit=50)
    assert settings(version, resources, ALL) == expected


def test_settings_without_limits_or_controllers() -> None:
    assert settings(2, Resources(), frozenset()) == {}
    assert set(settings(2, Resources(), ALL)) == {"cpu.weight", "pids.max"}


def test_version_2_groups_and_their_oom_counter(tmp_path: Path) -> None:
    groups = Groups(open_home(), "en-x", (Hierarchy(2, tmp_path, ALL),))
    group = groups.make(Resources(memory_limit=1))
    ((_, path),) = group.paths
    assert (path.parent / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (path / "memory.max").read_text() == str(1 << 20)
    (path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    assert group.oom_kills() == 2
    assert Group(()).oom_kills() == 0
