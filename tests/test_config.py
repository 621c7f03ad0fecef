"""Settings: which source wins, what each refuses, and what the refusal says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from minimodal.config import Config, load_config, settings, user_file
from minimodal.errors import InvalidError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty project directory; the home that `load` uses lies beside it."""
    (tmp_path / "project").mkdir()
    (tmp_path / "home" / "config").mkdir(parents=True)
    return tmp_path


def load(place: Path, _arguments: dict[str, Any] | None = None, /, **environ: str) -> Config:
    environ = {"MINIMODAL_HOME": str(place / "home")} | environ
    return load_config(_arguments, environ=environ, directory=place / "project")


def write_project(place: Path, text: str) -> None:
    (place / "project" / "pyproject.toml").write_text(text)


def write_user(place: Path, text: str) -> None:
    (place / "home" / "config" / "config.toml").write_text(text)


def test_defaults_need_no_source(tmp_path: Path) -> None:
    config = load_config(environ={"HOME": str(tmp_path)}, directory=tmp_path)
    assert config == Config()
    assert config.origin("backend") == "default"


def test_each_source_beats_the_next(place: Path) -> None:
    write_user(place, "backend = 'process'\nport = 1\nloglevel = 'info'\nmax_queued = 4")
    write_project(place, "[tool.minimodal]\nbackend = 'docker'\nport = 2\nloglevel = 'debug'")
    config = load(place, {"backend": "auto", "port": None}, MINIMODAL_BACKEND="bubblewrap")
    assert (config.backend, config.port, config.loglevel, config.max_queued) == (
        "auto",
        2,
        "debug",
        4,
    )
    assert config.origin("backend") == "argument --backend"
    assert config.origin("port").startswith("[tool.minimodal] in ")
    assert config.origin("max_queued") == str(place / "home/config/config.toml")
    assert config.origin("home") == "environment variable MINIMODAL_HOME"
    assert config.origin("retention") == "default"


def test_the_nearest_pyproject_is_read_from_a_sub_directory(place: Path) -> None:
    write_project(place, "[tool.minimodal]\nforce-build = true\nhome = 'state'")
    inner = place / "project" / "a" / "b"
    inner.mkdir(parents=True)
    config = load_config(environ={"HOME": str(place)}, directory=inner)
    assert config.force_build
    assert config.home == place / "project" / "state"
    assert user_file(config) == place / "project/state/config/config.toml"


def test_a_pyproject_of_others_is_not_parsed(place: Path) -> None:
    write_project(place, "this is no TOML, and none of our business")
    assert load(place).backend == "auto"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("retention", "12h", 43200.0),
        ("retention", "1.5d", 129600.0),
        ("retention", "90", 90.0),
        ("memory_budget", "4GiB", 4096),
        ("memory_budget", "512 mb", 512),
        ("memory_budget", "2048", 2048),
        ("cpu_budget", "1.5", 1.5),
        ("force_build", "1", True),
        ("force_build", "no", False),
        ("backend", "Docker", "docker"),
        ("port", "0", 0),
    ],
)
def test_texts_are_read(place: Path, name: str, text: str, value: object) -> None:
    config = load(place, **{f"MINIMODAL_{name.upper()}": text})
    assert getattr(config, name) == value


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("backend", "dokcer", "one of auto, docker, bubblewrap, process"),
        ("durability", "some", "one of normal, full"),
        ("port", "65536", "a whole number from 0 to 65535"),
        ("port", "80.5", "a whole number"),
        ("port", "http", "a whole number"),
        ("port", "nan", "a whole number"),
        ("port", "inf", "a whole number"),
        ("retention", "0", "a time above zero"),
        ("retention", "5 weeks", "a time above zero"),
        ("retention", "inf", "a time above zero"),
        ("memory_budget", "12", "at least 64 MiB"),
        ("memory_budget", "nan", "at least 64 MiB"),
        ("cpu_budget", "-1", "above zero"),
        ("force_build", "maybe", "true or false"),
        ("max_queued", "0", "a whole number from 1"),
    ],
)
def test_a_bad_value_names_its_origin_and_what_is_allowed(
    place: Path, name: str, text: str, allowed: str
) -> None:
    variable = f"MINIMODAL_{name.upper()}"
    with pytest.raises(InvalidError) as caught:
        load(place, **{variable: text})
    assert variable in str(caught.value)
    assert repr(text) in str(caught.value)
    assert allowed in str(caught.value)


def test_a_bad_value_in_a_weaker_source_is_not_hidden(place: Path) -> None:
    write_project(place, "[tool.minimodal]\nport = -1")
    with pytest.raises(InvalidError, match=r"pyproject\.toml: port = -1"):
        load(place, {"port": 1})


@pytest.mark.parametrize("value", ["true", "[1]", "''"])
def test_a_value_of_the_wrong_toml_type_is_refused(place: Path, value: str) -> None:
    write_project(place, f"[tool.minimodal]\nport = {value}")
    with pytest.raises(InvalidError, match="whole number"):
        load(place)


def test_a_misspelt_setting_in_a_file_is_an_error_with_the_nearest_name(place: Path) -> None:
    write_project(place, "[tool.minimodal]\nbackned = 'docker'")
    with pytest.raises(InvalidError, match="Did you mean backend"):
        load(place)


def test_a_misspelt_variable_warns_with_the_nearest_name(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load(place, MINIMODAL_BACKNED="docker", MINIMODAL_IS_REMOTE="1", MINIMODAL_PORT="")
    assert [record.getMessage() for record in caplog.records] == [
        "environment: there is no setting MINIMODAL_BACKNED. "
        "Did you mean MINIMODAL_BACKEND? (ignored)"
    ]


def test_broken_toml_names_the_file(place: Path) -> None:
    write_user(place, "backend = ")
    with pytest.raises(InvalidError, match=r"config\.toml cannot be read as TOML"):
        load(place)


def test_the_users_file_cannot_move_the_home_it_lies_in(place: Path) -> None:
    write_user(place, "home = '/elsewhere'")
    with pytest.raises(InvalidError, match="MINIMODAL_HOME"):
        load(place)


def test_the_section_must_be_a_table(place: Path) -> None:
    write_project(place, "[tool]\nminimodal = 3")
    with pytest.raises(InvalidError, match="must be a table"):
        load(place)


def test_every_setting_says_what_it_is() -> None:
    assert all(
        (about and about[0].islower()) or about.startswith(("OCI", "MiB"))
        for _, about in settings()
    )


SAYS = """
import logging, minimodal
from minimodal.host import Host
with Host():
    logging.getLogger("minimodal.engine").info("said quietly")
    print(minimodal.Image.debian_slim().spec().force_from)
"""


def test_log_level_and_forced_builds_of_a_file_count(place: Path) -> None:
    environ = {**os.environ, "MINIMODAL_BACKEND": "process"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", SAYS],
            cwd=place / "project",
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )

    done = run()
    assert (done.stdout, "said quietly" in done.stderr) == ("None\n", False)
    write_project(place, "[tool.minimodal]\nloglevel = 'info'\nforce-build = true")
    done = run()
    assert (done.stdout, "said quietly" in done.stderr) == ("0\n", True)
