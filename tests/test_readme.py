"""What the README promises stays true: its commands, its script, its settings."""

from __future__ import annotations

import re
from pathlib import Path

from minimodal.config import load_config

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str, containing: str) -> str:
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)
    return next(each for each in blocks if containing in each)


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    install = "python3 -m pip install --target .uv uv"
    assert f"{install} && .uv/bin/uv run minimodal run examples/hello.py" in README
    assert f"{install} && .uv/bin/uv run pytest" in README
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert install.replace("install", "install --quiet") in ci
    assert ".uv/bin/uv run pytest" in ci


def test_the_script_of_the_tour_is_the_example() -> None:
    example = (ROOT / "examples" / "hello.py").read_text(encoding="utf-8")
    assert block("python", "local_entrypoint").strip() in example


def test_the_settings_are_settings(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(block("toml", "tool.minimodal"))
    config = load_config(environ={"HOME": str(tmp_path)}, directory=tmp_path)
    assert config.memory_budget == 4096


def test_the_lines_of_a_test_are_in_the_example() -> None:
    example = (ROOT / "examples" / "test_with_pytest.py").read_text(encoding="utf-8")
    for line in block("python", "kill_container").splitlines()[2:]:
        assert line.strip() in example
