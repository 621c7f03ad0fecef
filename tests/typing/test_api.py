"""The checkers that users have keep the promises of api.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minimodal import option_types, options

REPOSITORY = Path(__file__).parents[2]
API = "tests/typing/api.py"

CHECKERS = {
    "mypy": ["mypy", "--strict", "--warn-unused-ignores", "--python-version", "3.11", API],
    "pyright": ["basedpyright", "--level", "error", "--pythonversion", "3.11", API],
}


def check(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip(command[0], reason="the group `check` is not installed")
    # No proxy answers on port 9: a checker that wanted to load a part of itself would fail.
    offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env={**os.environ, **offline, "npm_config_offline": "true"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_promises_hold(checker: str) -> None:
    done = check(*CHECKERS[checker], cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_broken_promise_is_found(checker: str, tmp_path: Path) -> None:
    """Both fail for a wrong type and for a mistake that nobody reports, else the test above is idle."""
    source = (REPOSITORY / API).read_text()
    wrong = source.replace(
        "assert_type(square.remote(3), int)", "assert_type(square.remote(3), str)"
    )
    wrong = wrong.replace('square.spawn("3")', "square.spawn(3)")
    assert wrong != source
    (tmp_path / "api.py").write_text(wrong)
    done = check(*CHECKERS[checker][:-1], str(tmp_path / "api.py"), cwd=REPOSITORY)
    reports = [line for line in done.stdout.splitlines() if "error" in line and "api.py:" in line]
    assert len(reports) == 2, done.stdout + done.stderr


def test_the_typed_options_are_those_that_are_checked() -> None:
    typed = option_types.FunctionOptions.__annotations__.keys()
    fields = set(options.Options._fields) - options.NOT_GIVEN
    assert typed == fields | options.MODALS
    assert option_types.ClsOptions.__annotations__.keys() == typed - {
        "schedule",
        "name",
        "is_generator",
    }
