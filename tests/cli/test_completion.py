"""Completion: what could come next, asked directly and through the shells themselves."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minimodal.cli import main as program_module
from minimodal.cli.completion import _look_into, words
from minimodal.cli.parser import Parser
from tests.cli.conftest import Program, environment

SCRIPT = """
import nothing_that_exists
raise SystemExit("it must not be imported")

@app.function()
def square(x: int): ...

@app.cls()
class Model:
    @minimodal.method()
    def predict(self, size: int): ...
    def plain(self): ...

@app.local_entrypoint()
async def main(first_name: str, *, count: int = 3): ...

def plain(): ...
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "one.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("minimodal ru", ["run"]),
        ("minimodal --debug do", ["doctor"]),
        ("minimodal --v", ["--version"]),
        ("minimodal calls ", ["cancel", "list", "show"]),
        ("minimodal calls list --s", ["--since", "--state"]),
        ("minimodal volume p", ["put"]),
        ("minimodal run --progress ", ["auto", "none", "plain"]),
        ("minimodal run --prog", ["--progress"]),
        ("minimodal completion z", ["zsh"]),
        ("minimodal run one.py::", ["one.py::Model.predict", "one.py::main", "one.py::square"]),
        ("minimodal run -q one.py::sq", ["one.py::square"]),
        ("minimodal run one.py --", ["--count", "--first-name", "--help"]),
        ("minimodal run one.py::Model.predict --s", ["--size"]),
        ("minimodal run one", []),  # a file's name is the shell's part
        ("minimodal run nowhere.py::", []),
        ("minimodal nonsense --", []),
        ("minimodal calls nonsense --", []),
    ],
)
def test_what_could_come_next(script: Path, line: str, expected: list[str]) -> None:
    found = words(line)
    if "list" in expected:
        assert set(expected) <= set(found)  # other commands may join these
    else:
        assert found == expected


def test_every_command_can_be_looked_into_and_has_an_example() -> None:
    parsers: dict[str, Parser] = {}
    for name in program_module.COMMANDS:
        command = importlib.import_module(f"minimodal.cli.{name}")
        found = _look_into(command.main).what
        subs = {"": found} if isinstance(found, Parser) else found
        for sub, what in subs.items():
            parser = what if isinstance(what, Parser) else _look_into(what.run).what
            assert isinstance(parser, Parser), f"{name} {sub}"
            parsers[f"{name} {sub}".strip()] = parser
    for name, parser in parsers.items():
        assert parser.prog == f"minimodal {name}"
        assert parser.description, name
        assert f"example: minimodal {name.split()[0]}" in parser.format_help(), name
    listings = [n for n in parsers if n.split()[-1] in ("list", "ls", "history", "config", "ps")]
    for name in listings:
        assert "--json" in parsers[name]._option_string_actions, name


LINE = "minimodal run one.py::s"

SHELLS = {
    "bash": f"""
        source <(minimodal completion bash)
        COMP_LINE='{LINE}' COMP_POINT={len(LINE)}
        _minimodal
        printf 'found %s\\n' "${{COMPREPLY[@]}}"
    """,
    "zsh": f"""
        compdef() {{ : }}
        compadd() {{ shift; printf 'found %s\\n' "${{@#one.py::}}" }}
        source <(minimodal completion zsh)
        LBUFFER='{LINE}'
        _minimodal
    """,
    "fish": f"""
        minimodal completion fish | source
        complete -C '{LINE}' | sed 's/^one.py::/found /'
    """,
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_a_functions_name(script: Path, shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    bin = script.parent / "bin"
    bin.mkdir()
    (bin / "minimodal").write_text(f'#!/bin/sh\nexec {sys.executable} -m minimodal "$@"\n')
    (bin / "minimodal").chmod(0o755)
    changes = {"PATH": f"{bin}{os.pathsep}{os.environ['PATH']}", "HOME": str(script.parent)}
    result = subprocess.run(
        [path, "-c", SHELLS[shell]],
        env=environment(changes),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.stdout.split() == ["found", "square"], result.stderr


def test_the_help_says_where_it_goes(program: Program) -> None:
    result = program("completion", "--help")
    assert "source <(minimodal completion bash)" in result.stdout
    wrong = program("completion", "powershell")
    assert wrong.returncode == 2
    assert "bash" in wrong.stderr
