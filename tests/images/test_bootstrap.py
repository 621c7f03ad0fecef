"""Making a base image from Debian's packages. The real debootstrap runs in `.ci/docker`."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import anyio
import pytest

from minimodal.backends.docker_connect import open_first
from minimodal.cli.main import main
from minimodal.errors import BuildError, InvalidError
from minimodal.home import Home
from minimodal.images.bootstrap import _import, _make_archive, find_tool, release_of
from tests.docker_engine import short_home


def test_a_python_that_no_release_has_is_refused_with_those_that_have_one() -> None:
    assert release_of("3.13") == "trixie"
    with pytest.raises(InvalidError, match=r"no Debian release has Python 3\.12; there are 3\.11"):
        release_of("3.12")


def test_the_command_line_says_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["image", "bootstrap", "--python", "2.7"]) != 0
    assert "no Debian release has Python 2.7" in capsys.readouterr().err


def test_without_a_tool_or_without_root_the_error_says_what_to_install() -> None:
    with pytest.raises(BuildError, match="apt-get install mmdebstrap"):
        find_tool(lambda name: None, is_root=True)
    only_debootstrap = {"debootstrap": "/usr/sbin/debootstrap"}.get
    with pytest.raises(BuildError, match="must be root"):
        find_tool(only_debootstrap, is_root=False)
    assert find_tool(only_debootstrap, is_root=True).name == "debootstrap"
    assert find_tool(lambda name: f"/bin/{name}", is_root=False).name == "mmdebstrap"


TREE = """#!/bin/sh
tree=$4
mkdir -p $tree/usr/bin $tree/usr/lib/python3.11 $tree/dev $tree/var/lib/apt/lists
echo python > $tree/usr/bin/python3
touch $tree/usr/lib/python3.11/EXTERNALLY-MANAGED $tree/dev/null $tree/var/lib/apt/lists/big
echo made $3 $5
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory at the front of PATH for a debootstrap of our own."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return tmp_path


def write_tool(tools: Path, script: str) -> None:
    (tools / "mmdebstrap").write_text(script)
    (tools / "mmdebstrap").chmod(0o755)


def test_the_tree_becomes_an_archive_without_what_a_package_manager_leaves(tools: Path) -> None:
    write_tool(tools, TREE)
    steps: list[str] = []
    details: list[str] = []
    archive, mirror = tools / "bases" / "python.tar.gz", "http://mirror.example/debian"
    anyio.run(_make_archive, archive, "bookworm", mirror, steps.append, details.append)
    assert steps == ["mmdebstrap bookworm: about a minute"]
    assert f"made bookworm {mirror}" in details
    with tarfile.open(archive) as tar:
        names = set(tar.getnames())
    assert {"./usr/bin/python3", "./usr/bin/python", "./dev", "./var/lib/apt/lists"} <= names
    assert not names & {"./dev/null", "./usr/lib/python3.11/EXTERNALLY-MANAGED"}
    assert "./var/lib/apt/lists/big" not in names
    assert list(archive.parent.iterdir()) == [archive]


def test_a_tool_that_fails_leaves_no_archive(tools: Path) -> None:
    write_tool(tools, "#!/bin/sh\necho E: no such mirror\nexit 3\n")
    archive = tools / "bases" / "python.tar.gz"
    with pytest.raises(BuildError, match="exit code 3\nE: no such mirror"):
        anyio.run(_make_archive, archive, "bookworm", None, print, print)
    assert list(archive.parent.iterdir()) == []


@pytest.mark.docker
def test_an_archive_is_imported_under_its_tag(tools: Path) -> None:
    async def body(home: Home) -> None:
        archive = home.cache / "bases" / "tiny.tar.gz"
        archive.parent.mkdir()
        (home.state / "file").write_text("x")
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(home.state / "file", "usr/file")
        tag = f"minimodal-test/{os.urandom(6).hex()}:1"
        async with open_first(None) as api:
            await _import(api, archive, "bookworm", tag)
            found = await api.image(tag)
            await api.remove_image(tag)
        assert found is not None
        assert found["Config"]["Cmd"] == ["python3"]
        assert found["Config"]["Labels"]["minimodal.bootstrapped"] == "Debian bookworm"
        assert [path.name for path in archive.parent.iterdir()] == ["tiny.tar.gz"]

    with short_home() as home:
        anyio.run(body, home)
