"""`minimodal run script.py::Cls.method`: arguments of the class and of the method in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Program

Write = Callable[[str, str], Path]

CLASSES = '''

app = minimodal.App("classes")

@app.cls()
class Greeter:
    word: str = minimodal.parameter()
    loud: bool = minimodal.parameter(default=False)

    @minimodal.enter()
    def prepare(self) -> None:
        self.count = 0

    @minimodal.method()
    def greet(self, name: str, times: int = 1) -> None:
        """Greet somebody."""
        text = f"{self.word}, {name}!" * times
        print(text.upper() if self.loud else text)

    @minimodal.method()
    def word_of(self, word: str) -> str:
        return word

@app.cls()
class Old:
    def __init__(self, start: int, step: int = 2) -> None:
        self.value = start + step

    @minimodal.method()
    def show(self) -> None:
        print(self.value)
'''


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["s.py::Greeter.greet", "--word", "Hi", "--name", "Ada"], "Greeter.greet | Hi, Ada!"),
        (
            ["s.py::app.Greeter.greet", "--word", "Hi", "--loud", "--name", "Ada", "--times", "2"],
            "Greeter.greet | HI, ADA!HI, ADA!",
        ),
        (["s.py::Old.show", "--start", "40"], "Old.show | 42"),
        (["s.py::Old", "--start", "1", "--step", "1"], "Old.show | 2"),
    ],
)
def test_a_method_runs_on_an_object_with_these_arguments(
    program: Program, script: Write, arguments: list[str], said: str
) -> None:
    script("s.py", CLASSES)
    result = program("run", *arguments)
    assert result.returncode == 0, result.stderr
    assert said.partition(" | ")[2] in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        (["s.py::Greeter.greet", "--name", "Ada"], 2, "required: --word"),
        (["s.py::Greeter.greet", "--word", "a", "--name", "b", "--times", "x"], 2, "whole number"),
        (["s.py::Greeter.gret"], 2, "try: minimodal run s.py::Greeter.greet"),
        (["s.py::Greeter"], 1, "minimodal run s.py::Greeter.word_of"),
        (["s.py::Greeter.word_of"], 1, "both have an argument 'word'"),
        (["s.py"], 1, "minimodal run s.py::Old.show"),
    ],
)
def test_a_wrong_line_names_the_way_out(
    program: Program, script: Write, arguments: list[str], code: int, hint: str
) -> None:
    script("s.py", CLASSES)
    result = program("run", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert hint in result.stderr
    assert "Traceback" not in result.stderr
