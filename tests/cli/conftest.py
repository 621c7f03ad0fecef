"""The real program as a fixture: scripts in a directory of their own, exit code and both streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

Result = subprocess.CompletedProcess[str]
Program = Callable[..., Result]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def script(place: Path) -> Callable[[str, str], Path]:
    """Write a script, with `import minimodal` above it."""

    def write(name: str, text: str) -> Path:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("import minimodal\n" + text)
        return path

    return write


@pytest.fixture
def program(place: Path) -> Program:
    """Run `python -m minimodal` with arguments in the directory of the scripts."""

    def run(*arguments: str, **environ: str) -> Result:
        return subprocess.run(
            [sys.executable, "-m", "minimodal", *arguments],
            cwd=place,
            env=environment(environ),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=50,
            check=False,
        )

    return run


@contextmanager
def started(script: Path, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """`minimodal run -q` of a script that goes on; whatever happens, it is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "minimodal", "run", "-q", str(script)],
        env=environment(environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def environment(changes: dict[str, str]) -> dict[str, str]:
    """The environment of a program under test: the process backend, no colours, no CI."""
    hidden = ("CI", "NO_COLOR", "FORCE_COLOR", "PYTHONPATH", "COLUMNS")
    mine = {name: value for name, value in os.environ.items() if name not in hidden}
    root = str(Path(__file__).resolve().parents[2])
    return mine | {"MINIMODAL_BACKEND": "process", "PYTHONPATH": root} | changes
