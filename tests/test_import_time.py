"""What starting up may import: the budget is kept by names, not by a clock."""

from __future__ import annotations

import subprocess
import sys

import pytest


def imported_by(code: str) -> set[str]:
    """The modules that `python -X importtime -c code` imports, without those of an empty program."""

    def modules(text: str) -> set[str]:
        command = [sys.executable, "-X", "importtime", "-c", text]
        result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=True)
        lines = [line for line in result.stderr.splitlines() if line.startswith("import time:")]
        return {line.rpartition("|")[2].strip() for line in lines}

    return modules(code) - modules("pass")


def third_party(modules: set[str]) -> set[str]:
    packages = {module.partition(".")[0] for module in modules}
    return {each for each in packages - {"minimodal"} if each not in sys.stdlib_module_names}


def test_import_minimodal_is_light() -> None:
    modules = imported_by("import minimodal")
    assert "minimodal" in modules
    assert third_party(modules) == set()
    assert "asyncio" not in modules


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_the_program_answers_without_loading_its_commands(option: str) -> None:
    modules = imported_by(
        f"import sys, minimodal.cli.main as m; sys.argv = ['minimodal', {option!r}]; m.main()"
    )
    assert third_party(modules) == set()
    ours = {module for module in modules if module.startswith("minimodal.")}
    assert ours <= {"minimodal.cli", "minimodal.cli.main", "minimodal.cli.failure"}
    assert modules & {"asyncio", "inspect", "typing", "logging", "tempfile", "subprocess"} <= {
        "typing"
    }
