"""`minimodal volume`, `secret`, `dict` and `queue`, on a home where no engine runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minimodal import Dict, Queue, Secret, Volume
from minimodal.cli.main import main
from minimodal.cli.state import home_objects
from tests.cli.conftest import Program, environment


@pytest.fixture
def program(
    place: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Program:
    """The program in this process: starting one costs more than what these commands do."""
    monkeypatch.chdir(place)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        code = main(list(arguments))
        said = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


def test_volume(program: Program, place: Path) -> None:
    (place / "tree").mkdir()
    (place / "tree" / "a.txt").write_text("a")
    (place / "tree" / "b.txt").write_text("b")
    assert program("volume", "create", "cli").returncode == 0
    assert program("volume", "create", "cli").stderr.startswith("error: there is a volume 'cli'")
    assert program("volume", "put", "cli", "tree").returncode == 0
    assert program("volume", "put", "cli", "tree/a.txt", "/top/").returncode == 0
    again = program("volume", "put", "cli", "tree/a.txt", "/top/")
    assert again.returncode == 1
    assert "'top/a.txt' is in the volume already" in again.stderr
    assert program("volume", "cp", "cli", "top/a.txt", "c.txt").returncode == 0
    listed = json.loads(program("volume", "ls", "cli", "-r", "--json").stdout)["items"]
    assert [(row["path"], row["type"], row["size"]) for row in listed] == [
        ("c.txt", "file", 1),
        ("top", "directory", 0),
        ("top/a.txt", "file", 1),
        ("tree", "directory", 0),
        ("tree/a.txt", "file", 1),
        ("tree/b.txt", "file", 1),
    ]
    assert "top/a.txt" in program("volume", "ls", "cli", "top").stdout
    assert program("volume", "get", "cli", "c.txt", "-").stdout == "a"
    assert program("volume", "get", "cli", "tree", "got").returncode == 0
    assert (place / "got" / "b.txt").read_text() == "b"
    assert "exists" in program("volume", "get", "cli", "tree", "got/..").stderr
    missing = program("volume", "get", "cli", "absent")
    assert missing.returncode == 1
    assert missing.stderr == "error: there is no 'absent' in the volume\n"
    assert program("volume", "rm", "cli", "tree").returncode == 1
    assert program("volume", "rm", "cli", "tree", "-r").returncode == 0
    assert program("volume", "rename", "cli", "renamed").returncode == 0
    names = json.loads(program("volume", "list", "--json").stdout)["items"]
    assert "renamed" in [row["name"] for row in names]
    assert "--yes" in program("volume", "delete", "renamed").stderr
    assert program("volume", "delete", "renamed", "-y").returncode == 0
    assert program("volume", "ls", "renamed").returncode == 1


def test_secret(program: Program, place: Path) -> None:
    (place / "value").write_text("of a file")
    (place / "some.env").write_text("FROM=dotenv\n")
    done = program("secret", "create", "cli", "A=1=2", "B=@value", "--from-dotenv", "some.env")
    assert (done.returncode, done.stdout) == (0, "")
    typed = subprocess.run(
        [sys.executable, "-m", "minimodal", "secret", "create", "typed", "KEY=-"],
        input="of stdin\n",
        env=environment({}),
        text=True,
        timeout=30,
        check=False,
    )
    assert typed.returncode == 0
    with home_objects():
        for name, keys in (("cli", ["A", "B", "FROM"]), ("typed", ["KEY"])):
            Secret.from_name(name, required_keys=keys).hydrate()
    listed = program("secret", "list")
    assert "typed" in listed.stdout
    assert "of stdin" not in listed.stdout
    again = program("secret", "create", "cli", "A=hidden-value")
    assert again.returncode == 1
    assert "hidden-value" not in again.stderr
    assert program("secret", "create", "cli", "A=x", "--force").returncode == 0
    assert "KEY=-" not in program("secret", "create", "other").stderr
    assert "has no value" in program("secret", "create", "other", "KEY").stderr
    assert "secrets are encrypted" in program("secret", "rotate").stderr
    for name in ("cli", "typed"):
        assert program("secret", "delete", name, "--yes").returncode == 0
    assert program("secret", "delete", "cli", "--yes").returncode == 1


def test_dict_and_queue(program: Program) -> None:
    with home_objects():
        Dict.from_name("cli", create_if_missing=True)["key"] = [1, "two"]
        Queue.from_name("cli", create_if_missing=True).put_many(["first", "second"])
    rows = program("dict", "items", "cli").stdout.splitlines()
    assert [row.split() for row in rows] == [["KEY", "VALUE"], ["'key'", "[1,", "'two']"]]
    assert program("dict", "get", "cli", "key").stdout == "[1, 'two']\n"
    assert program("dict", "get", "cli", "no").returncode == 1
    assert json.loads(program("queue", "peek", "cli", "0", "--json").stdout)["items"] == [
        {"item": "'first'"},
        {"item": "'second'"},
    ]
    assert program("queue", "len", "cli").stdout == "2\n"
    assert program("queue", "clear", "cli", "--yes").returncode == 0
    assert program("queue", "len", "cli", "--total").stdout == "0\n"
    for kind in ("dict", "queue"):
        assert program(kind, "create", "another").returncode == 0
        assert "another" in program(kind, "list").stdout
        for name in ("another", "cli"):
            assert program(kind, "delete", name, "-y").returncode == 0


@pytest.mark.parametrize("group", ["volume", "secret", "dict", "queue"])
def test_help_and_misspelling(program: Program, group: str) -> None:
    shown = program(group, "--help")
    assert shown.returncode == 0
    assert "delete" in shown.stdout
    wrong = program(group, "lst")
    assert wrong.returncode == 2
    assert f"minimodal {group} list" in wrong.stderr


def test_without_an_engine_functions_do_not_run(tmp_path: Path) -> None:
    import minimodal
    from minimodal.errors import Error

    app = minimodal.App("none")
    function = app.function(serialized=True)(lambda: None)
    with home_objects():
        volume = Volume.from_name("offline", create_if_missing=True)
        (tmp_path / "a").write_text("a")
        volume.put_file(tmp_path / "a", "a")
        assert volume.list_files() == ["a"]
        with pytest.raises(Error, match="no operation"):
            function.remote()
        Volume.delete("offline")
