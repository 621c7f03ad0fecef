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
        f"import sys, minimodal.cli.main as m; sys.argv = ['minimodal', {option!r}]; m.program()"
    )
    assert third_party(modules) == set()
    ours = {module for module in modules if module.startswith("minimodal.")}
    assert ours <= {f"minimodal.{each}" for each in ("cli", "cli.main", "cli.failure", "garbage")}
    assert modules & {"asyncio", "inspect", "typing", "logging", "tempfile", "subprocess"} <= {
        "typing"
    }


def test_a_container_of_a_plain_function_loads_what_it_needs() -> None:
    """A cold start is half imports: what is slow, and needed by some scripts only, comes later."""
    modules = imported_by(
        "import minimodal.agent.supervisor, minimodal.agent.executor, minimodal\n"
        "app = minimodal.App('a')\n"
        "@app.function(timeout=9)\n"
        "def f(): ...\n"
    )
    assert "minimodal.agent.executor" in modules
    slow = {"asyncio", "ctypes", "dataclasses", "hashlib", "inspect", "pathlib", "subprocess"}
    assert modules & slow == set()
    assert "minimodal.spec_types" not in modules


def test_a_container_of_a_script_with_an_image_and_a_volume_loads_no_more() -> None:
    modules = imported_by(
        "import minimodal\n"
        "image = minimodal.Image.debian_slim().pip_install('numpy')\n"
        "volume = minimodal.Volume.from_name('v')\n"
        "app = minimodal.App('a', image=image)\n"
        "@app.function(volumes={'/v': volume}, retries=2, secrets=[minimodal.Secret.from_dict({})])\n"
        "def f(): ...\n"
    )
    assert "minimodal.layers" in modules
    assert (
        modules & {"asyncio", "hashlib", "subprocess", "zoneinfo", "minimodal.spec_types"} == set()
    )
