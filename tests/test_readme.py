"""What the README promises stays true: each block of code is run, each command and setting exists.

- All `python` blocks of a section are one script. A block without a decorator, function or import is the
  body of an entrypoint. What has tests in it is run by pytest, a script with an App by the program.
- A `console` block is a session: its `$` lines are run, and what follows is what must be printed, in any
  order, where numbers, ids and times may differ.
- A command in backticks is looked up: the command, its commands, and each of its options must exist.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.cli.completion import _look_into
from minimodal.cli.main import COMMANDS
from minimodal.cli.parser import Parser
from minimodal.cli.run import split
from minimodal.compat import ABSENT, REFUSED, SAFE
from minimodal.config import load_config
from tests.cli.conftest import environment

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def sections(language: str) -> dict[str, list[str]]:
    """The blocks in that language, by the heading that they stand under."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^##+ ", README, flags=re.M)[1:]:
        blocks = [text for kind, text in BLOCK.findall(part) if kind == language]
        if blocks:
            found[part.partition("\n")[0]] = blocks
    return found


PYTHON = sections("python")
TOUR = "A tour in sixty seconds"


def is_statements(block: str) -> bool:
    """Whether it only makes sense inside a running app."""
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return not any(isinstance(node, kinds) for node in ast.parse(block).body)


def script_of(blocks: list[str]) -> str:
    """One script of the blocks of a section."""
    body = [block for block in blocks if is_statements(block)]
    text = "\n".join(block for block in blocks if not is_statements(block))
    if "minimodal.App(" not in text:
        text = PYTHON[TOUR][0] + text
    if body:
        lines = "".join("    " + line for block in body for line in block.splitlines(keepends=True))
        text += f"\n\n@app.local_entrypoint()\ndef readme():\n{lines}"
    return text


def run(command: list[str], place: Path, backend: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=place,
        env=environment({"MINIMODAL_BACKEND": backend}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=55,
        check=False,
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout as the README has it, with the script of the tour beside."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "tour.py").write_text(PYTHON[TOUR][0])
    return tmp_path


@pytest.mark.bubblewrap
@pytest.mark.parametrize("section", [name for name in PYTHON if name != TOUR])
def test_the_code_of_a_section_runs(section: str, place: Path) -> None:
    blocks = PYTHON[section]
    if any("def test_" in block for block in blocks):
        (place / "test_readme_block.py").write_text("\n".join(blocks))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        shutil.copy(place / "examples" / "hello.py", place)
        result = run([*command, "test_readme_block.py"], place, "embedded")
        assert " passed" in result.stdout, result.stdout
    elif not any("app" in block for block in blocks):
        exec(compile("\n".join(blocks), section, "exec"), {"__name__": "block"})
    else:
        text = script_of(blocks)
        (place / "block.py").write_text(text)
        name = "readme" if "def readme()" in text else ""
        # A section that only defines things is imported, and its functions checked, as by a run.
        command = [sys.executable, "-m", "minimodal", "run", "-q", f"block.py::{name}".rstrip(":")]
        if not name:
            (place / "block.py").write_text(
                text + "\n\n@app.local_entrypoint()\ndef readme(): ...\n"
            )
        result = run(command, place, "bubblewrap")
        assert result.returncode == 0, result.stdout


def plain(line: str) -> str:
    """A line without what differs from run to run."""
    line = re.sub(r"\b\d+(\.\d+)? (ms|s|min)\b", "TIME", line)
    line = re.sub(r"\b[0-9a-f]{12}\b", "ID", line)
    line = re.sub(r"==[\d.]+", "==VERSION", line)
    return re.sub(r"\d+ containers", "N containers", line).strip()


MAY_BE_LEFT_OUT = re.compile(r"backend: |\s*image ID|✓ image ID|.*✓? ?square: .* done| *square: ")


@pytest.mark.bubblewrap
@pytest.mark.parametrize("section", sections("console"))
def test_a_session_prints_what_it_shows(section: str, place: Path) -> None:
    for block in sections("console")[section]:
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            line, *shown = part.splitlines()
            words = shlex.split(line)
            assert words[0] == "minimodal"
            result = run([sys.executable, "-m", "minimodal", *words[1:]], place, "bubblewrap")
            assert result.returncode == 0, result.stdout
            printed = sorted(map(plain, result.stdout.splitlines()))
            expected = sorted(map(plain, shown))
            assert [each for each in printed if not MAY_BE_LEFT_OUT.match(each)] == [
                each for each in expected if not MAY_BE_LEFT_OUT.match(each)
            ]
            if any("image ID" in each for each in printed):  # else it was too quick for a line
                builds = [each for each in expected if "image ID" in each]
                assert all(any(each in line for line in printed) for each in builds), printed


def commands() -> Iterator[str]:
    text = BLOCK.sub("", README)
    yield from re.findall(r"`(minimodal [^`]+)`", text)
    for kind, block in BLOCK.findall(README):
        if kind in ("", "sh"):
            yield from re.findall(r"^(?:.*&& )?(?:\.uv/bin/uv run )?(minimodal .*)$", block, re.M)


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_a_command_exists_with_its_options(command: str) -> None:
    _, name, *rest = shlex.split(command.replace("|", " "))
    if name.startswith("--") or name == "COMMAND":
        return
    assert name in COMMANDS
    if name in ("run", "serve", "deploy", "shell"):
        rest = split(rest)[0]
    what = _look_into(importlib.import_module(f"minimodal.cli.{name}").main).what
    if not isinstance(what, Parser):
        if not rest:
            return
        named = [word for word in rest if not word.startswith("-") and word in what]
        assert named, f"{rest} of {name}"
        what = _look_into(what[named[0]].run).what
    for word in rest:
        if word.startswith("-") and word not in ("--help", "--json"):
            assert word.partition("=")[0] in what._option_string_actions, word


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    install = "python3 -m pip install --target .uv uv"
    assert f"{install} && .uv/bin/uv run minimodal run examples/hello.py" in README
    assert f"{install} && .uv/bin/uv run pytest" in README
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert install.replace("install", "install --quiet") in ci
    assert ".uv/bin/uv run pytest" in ci


def test_the_settings_are_settings(tmp_path: Path) -> None:
    [text] = sections("toml")["Settings"]
    (tmp_path / "pyproject.toml").write_text(text)
    config = load_config(environ={"HOME": str(tmp_path)}, directory=tmp_path)
    assert config.memory_budget == 4096


def test_the_table_for_modals_scripts_is_what_is_checked() -> None:
    [row] = re.findall(r"^\| `nonpreemptible`.*$", README, re.M)
    safe, refused, absent = (set(re.findall(r"`(\w+)`", cell)) for cell in row.split("|")[1:4])
    assert safe == SAFE | {"environment_name", "client", "version"}
    assert refused == REFUSED.keys() | {"gpu"}
    assert absent == ABSENT.keys()


def test_its_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
    for name in re.findall(r"`(\w+\.(?:py|ipynb))`", README.partition("## Debugging")[0]):
        assert (ROOT / "examples" / name).exists() or name == "script.py", name


def test_only_known_languages_are_used() -> None:
    assert {kind for kind, _ in BLOCK.findall(README)} <= {"", "python", "console", "toml", "text"}
