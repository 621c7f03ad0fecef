"""A starter script that runs as it is, and the way to get the disk back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Program, started


def test_the_starter_runs_as_it_is(program: Program, place: Path) -> None:
    result = program("init")
    assert (result.returncode, result.stdout) == (0, "")
    assert "minimodal run app.py" in result.stderr
    ran = program("run", "-q", "app.py", "--count", "4")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [
        "greet | in a container: world",
        "Hello world!",
        "in parallel: 14",
        "spawned: 144",
    ]


def test_a_file_is_not_overwritten(program: Program, place: Path) -> None:
    (place / "app.py").write_text("mine")
    refused = program("init")
    assert refused.returncode == 1
    assert "there is a file app.py already" in refused.stderr
    assert (place / "app.py").read_text() == "mine"
    assert program("init", "--force").returncode == 0
    assert "minimodal.App" in (place / "app.py").read_text()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("app", "minimodal init app.py"),
        ("json.py", "cannot be imported"),
        ("a.b.py", "cannot be imported"),
        ("nowhere/app.py", "No such file"),
    ],
)
def test_a_name_that_cannot_be(program: Program, name: str, hint: str) -> None:
    result = program("init", name)
    assert result.returncode in (1, 2)
    assert hint in result.stderr


def test_clean_frees_what_can_be_made_again(program: Program, scratch: Path) -> None:
    home = str(scratch / "clean")  # short: its sockets lie in it, too
    assert program("init", MINIMODAL_HOME=home).returncode == 0
    assert program("run", "app.py", MINIMODAL_HOME=home).returncode == 0
    told = json.loads(program("clean", "--dry-run", "--json", MINIMODAL_HOME=home).stdout)
    assert told["removed"] is False
    assert sum(item["bytes"] for item in told["items"]) > 100_000
    asked = program("clean", MINIMODAL_HOME=home)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert any((scratch / "clean" / "cache").iterdir())
    cleaned = program("clean", "--yes", MINIMODAL_HOME=home)
    assert cleaned.returncode == 0
    assert cleaned.stderr.startswith("freed ")
    assert not any((scratch / "clean" / "cache").iterdir())
    assert (scratch / "clean" / "state" / "minimodal.db").exists()
    assert program("run", "app.py", MINIMODAL_HOME=home).returncode == 0
    assert program("clean", "--all", "--yes", MINIMODAL_HOME=home).returncode == 0
    assert list((scratch / "clean").iterdir()) == []


def test_clean_is_refused_while_an_engine_runs(
    program: Program, place: Path, scratch: Path
) -> None:
    home = str(scratch / "busy")
    script = place / "waiting.py"
    script.write_text(
        "import time, minimodal\napp = minimodal.App()\n"
        "@app.function()\ndef f(): ...\n"
        "@app.local_entrypoint()\ndef main():\n"
        "    f.remote()\n    print('ready', flush=True)\n    time.sleep(600)\n"
    )
    with started(script, MINIMODAL_HOME=home) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        refused = program("clean", "--yes", MINIMODAL_HOME=home)
    assert refused.returncode == 1
    assert f"an engine runs in this home: run (pid {process.pid})" in refused.stderr
