"""`minimodal doctor` and `minimodal config`, through the real program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from minimodal.cli import doctor
from minimodal.home import open_home
from tests.cli.conftest import Program


def test_doctor_says_what_works_and_why_not(program: Program) -> None:
    result = program("doctor", "--json", DOCKER_HOST="unix:///nowhere/docker.sock")
    report = json.loads(result.stdout)
    assert report["schema"] == "minimodal.doctor/1"
    backends = {each["name"]: each for each in report["backends"]}
    assert list(backends) == ["docker", "bubblewrap", "process"]
    assert backends["process"]["ok"] is True
    assert set(backends["process"]["details"]) >= {"files", "memory", "network"}
    assert backends["docker"]["ok"] is False
    assert backends["docker"]["text"]
    checks = {each["name"]: each for each in report["checks"]}
    assert checks["backend"]["text"].startswith("process")
    assert checks["minimodal"]["ok"] is True
    assert "environment variable MINIMODAL_HOME" in checks["home"]["text"]
    assert (result.returncode, report["ok"]) == (0, True)


def test_a_backend_that_was_asked_for_and_fails_is_1(program: Program) -> None:
    result = program("doctor", "--backend", "docker", DOCKER_HOST="unix:///nowhere/docker.sock")
    assert result.returncode == 1
    assert "docker, which does not work here" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_a_package_of_the_same_name_is_noticed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor._package().ok
    (place / "minimodal.py").touch()
    monkeypatch.chdir(place)
    check = doctor._package()
    assert check.ok is False
    assert f"{place} hides this package" in check.text


def test_a_home_that_cannot_be_used_is_a_finding_not_a_crash(program: Program) -> None:
    result = program("doctor", MINIMODAL_HOME="/dev/null/nowhere")
    assert result.returncode == 1
    assert "✗ home" in result.stdout


def test_f47_a_damaged_database_is_a_finding(program: Program, scratch: Path) -> None:
    home = open_home(scratch / "damaged")
    home.database.write_bytes(b"hello " * 5000)
    result = program("doctor", "--backend", "process", MINIMODAL_HOME=str(scratch / "damaged"))
    assert result.returncode == 1
    assert f"✗ record       {home.database} is damaged: " in result.stdout


def test_config_shows_values_and_origins(program: Program, place: Path) -> None:
    (place / "pyproject.toml").write_text("[tool.minimodal]\nport = 1234\nforce_build = true\n")
    text = program("config", "--show-origin").stdout
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert (
        rows["backend"].split() == "backend process environment variable MINIMODAL_BACKEND".split()
    )
    assert "[tool.minimodal] in " in rows["port"]
    assert rows["force_build"].split()[1] == "true"
    assert rows["durability"].split() == ["durability", "normal", "default"]
    settings = json.loads(program("config", "--json").stdout)["settings"]
    assert settings["port"]["value"] == 1234


@pytest.mark.parametrize("command", ["run", "doctor", "config"])
def test_each_command_has_help_with_an_example(program: Program, command: str) -> None:
    result = program(command, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: minimodal {command}")
    assert "example: minimodal " + command in result.stdout
