"""`minimodal run` beyond the plain case: methods, events for programs, variables, inline dependencies."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from minimodal.errors import InvalidError
from minimodal.inline import inline_dependencies
from tests.cli.conftest import Program

Write = Callable[[str, str], Path]

MODEL = """
app = minimodal.App("models")

@app.cls()
class Model:
    name: str = minimodal.parameter()
    size: int = minimodal.parameter(default=3)

    @minimodal.method()
    def predict(self, x: int, twice: bool = False) -> str:
        "Say what it would be."
        text = f"{self.name}-{self.size}: {self.size * x * (2 if twice else 1)}"
        print(text)
        return text

    @minimodal.method()
    def stream(self, x: int):
        yield x

@app.cls()
class Old:
    def __init__(self, step: int = 2):
        self.step = step

    @minimodal.method()
    def add(self, x: int) -> str:
        return str(self.step + x)
"""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["Model.predict", "--name", "small", "--x", "5"], "small-3: 15"),
        (["Model.predict", "--name", "b", "--size", "2", "--x", "5", "--twice"], "b-2: 20"),
        (["app.Old.add", "--step", "4", "--x", "5"], "9"),
        (["Old.add", "--x", "5"], "7"),
    ],
)
def test_a_method_takes_the_arguments_of_its_object_too(
    program: Program, script: Write, place: Path, arguments: list[str], expected: str
) -> None:
    script("model.py", MODEL)
    result = program("run", "-w", "out", f"model.py::{arguments[0]}", *arguments[1:])
    assert result.returncode == 0, result.stderr
    assert (place / "out").read_text() == expected


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["model.py::Model.predict"], ["required: --x, --name"]),
        (["model.py::Model.predcit"], ["try: minimodal run model.py::Model.predict"]),
        (["model.py::Model.stream", "--name", "a", "--x", "1"], ["is a generator"]),
        (["model.py"], ["only methods of classes", "model.py::Model.predict", "model.py::Old.add"]),
    ],
)
def test_a_wrong_method_is_explained(
    program: Program, script: Write, arguments: list[str], parts: list[str]
) -> None:
    script("model.py", MODEL)
    result = program("run", *arguments)
    assert result.returncode in (1, 2)
    assert all(part in result.stderr for part in parts), result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_of_a_method_lists_both(program: Program, script: Write) -> None:
    script("model.py", MODEL)
    result = program("run", "model.py::Model.predict", "--help")
    assert result.returncode == 0
    for part in ("--name TEXT", "--size INT", "--x INT", "--no-twice", "Say what it would be."):
        assert part in result.stdout


EVENTS = """
import sys
app = minimodal.App("events")

@app.function()
def f(x: int):
    print("in", x)
    return 1 // x

@app.local_entrypoint()
def main(fail: bool = False):
    print("out")
    sys.stdout.buffer.write("bytes é\\n".encode())
    print("no newline", end="", file=sys.stderr)
    list(f.map([1, 2, 0], return_exceptions=not fail))
"""


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_one_event_a_line_and_nothing_else_on_stdout(
    program: Program, script: Write
) -> None:
    script("events.py", EVENTS)
    result = program("run", "--json", "events.py")
    assert (result.returncode, result.stderr) == (0, "")
    found = events(result.stdout)
    assert {each["schema"] for each in found} == {"minimodal.event/1"}
    assert all(datetime.fromisoformat(each["at"]).tzinfo for each in found)
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        by_kind.setdefault(each["kind"], []).append(each)
    assert sorted(each["text"] for each in by_kind["log"]) == ["in 0", "in 1", "in 2"]
    assert {(each["stream"], each["text"]) for each in by_kind["output"]} == {
        ("stdout", "out"),
        ("stdout", "bytes é"),
        ("stderr", "no newline"),
    }
    [ended] = [each for each in by_kind["map"] if each["finished"]]
    assert (ended["name"], ended["done"], ended["failed"], ended["total"]) == ("f", 3, 1, 3)
    last = found[-1]
    assert (last["kind"], last["exit_code"], last["error"]) == ("run.finished", 0, None)
    assert (last["calls"], last["failed"], last["containers"] >= 1) == (3, 1, True)


def test_json_of_a_run_that_fails(program: Program, script: Write) -> None:
    script("events.py", EVENTS)
    result = program("run", "--json", "events.py", "--fail")
    last = events(result.stdout)[-1]
    assert (result.returncode, last["exit_code"]) == (1, 1)
    assert last["error"].startswith("ZeroDivisionError: ")
    assert "ZeroDivisionError" in result.stderr


ENV = """
import os
app = minimodal.App("env")

@app.function()
def f():
    print("token", os.environ["TOKEN"])
    return len(os.environ["TOKEN"])

@app.local_entrypoint()
def main():
    print(os.environ["TOKEN"] == "a secret with spaces", f.remote())
"""


def test_variables_of_a_file_reach_script_and_functions(
    program: Program, script: Write, place: Path
) -> None:
    script("env.py", ENV)
    (place / "my.env").write_text("# mine\nexport TOKEN='a secret with spaces'\n")
    result = program("run", "-q", "--env-file", "my.env", "env.py")
    assert result.stdout == "f | token ***\nTrue 20\n", result.stderr
    (place / ".env").write_text("TOKEN=nobody asked for it\n")
    assert "KeyError: 'TOKEN'" in program("run", "env.py").stderr
    missing = program("run", "--env-file", "mine.env", "env.py")
    assert (missing.returncode, missing.stderr) == (
        2,
        "error: --env-file: there is no file mine.env.\n",
    )


SCRIPT = """
# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "roman",          # numerals
#   'minimodal',
#   "rich[jupyter] ; python_version > '3'",
# ]
# ///
"""


def test_inline_dependencies_are_read_without_a_toml_parser(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(SCRIPT)
    assert inline_dependencies(str(path)) == ["roman", "rich[jupyter] ; python_version > '3'"]
    for text in ("", "# /// script\n# x = 1\n# ///\n", "# /// script\n# dependencies = ['a']\n"):
        path.write_text(text)
        assert inline_dependencies(str(path)) == []
    path.write_text("# /// script\n# dependencies = [1]\n# ///\n")
    with pytest.raises(InvalidError, match=r"a\.py.*no list of strings"):
        inline_dependencies(str(path))
    assert inline_dependencies(None) == inline_dependencies("/nowhere.py") == []


ROMAN = """
# /// script
# dependencies = ["roman"]
# ///
app = minimodal.App("roman")

@app.function()
def f(n: int) -> str:
    import roman
    return roman.toRoman(n)
"""


@pytest.mark.bubblewrap
def test_inline_dependencies_are_in_the_default_image(
    program: Program, script: Write, place: Path
) -> None:
    script("numerals.py", ROMAN)
    arguments = ("run", "-w", "out", "numerals.py", "--n", "14")
    result = program(*arguments, MINIMODAL_BACKEND="bubblewrap")
    assert result.returncode == 0, result.stderr
    assert (place / "out").read_text() == "XIV"
