"""The examples run for real, on every backend that works here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import environment, started

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(
    backend: str, example: str, *arguments: str, directory: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minimodal", "run", str(EXAMPLES / example), *arguments],
        env=environment({"MINIMODAL_BACKEND": backend}),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=160,
        check=False,
    )


def test_hello(backend: str) -> None:
    result = run(backend, "hello.py", "--x", "12")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["square | squaring 12", "12 squared is 144"]


ENDS = {
    "example.py": "in Rome MCMLXXXIV",
    "volumes_example.py": "read from here: spring, line 2",
    "secrets_example.py": "here it is not set",
    "web_endpoints_example.py": "asgi: 200 hello",
    "cron_jobs_example.py --seconds 1.5": "done",
    "comprehensive_example.py --reviews 20": "the schedule has fired",
    "parallel_etl.py --parts 200": "plotted to parallel_etl.svg",
    "ml_training.py --folds 2": "it reads 0 1 2 3",
    "fastapi_app.py": "its documentation is at /docs: True",
    "job_queue.py": "12 squared is 144",
}
MOUNTS = {"volumes_example.py", "comprehensive_example.py"}


def everywhere() -> Iterator[Any]:
    """Each example on each backend; but for the first, all but one container backend are `slow`."""
    for position, command in enumerate(ENDS):
        for name in ("process", "bubblewrap", "docker"):
            marks = [] if name == "process" else [getattr(pytest.mark, name)]
            if command.startswith("ml_training"):  # it builds scikit-learn into an image
                marks.append(pytest.mark.long)
            if position and name != ("bubblewrap", "docker")[position % 2]:
                marks.append(pytest.mark.slow)
            if name != "process" or command.split()[0] not in MOUNTS:
                yield pytest.param(name, command, marks=marks)


@pytest.mark.timeout(170)
@pytest.mark.parametrize(("where", "command"), list(everywhere()))
def test_example(where: str, command: str, tmp_path: Path) -> None:
    example, *arguments = command.split()
    result = run(where, example, *arguments, directory=tmp_path)
    assert result.returncode == 0, result.stderr
    assert ENDS[command] in result.stdout.splitlines()[-1]
    for plot in tmp_path.glob("*.svg"):
        lines = ElementTree.parse(plot).findall("{http://www.w3.org/2000/svg}polyline")
        assert len(lines) == 5


def test_each_example_is_run_by_a_test() -> None:
    elsewhere = {"hello.py", "code_sandbox.py", "test_with_pytest.py", "notebook.ipynb"}
    names = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    assert names == elsewhere | {command.split()[0] for command in ENDS}


def test_secrets_are_masked(backend: str) -> None:
    result = run(backend, "secrets_example.py")
    assert "calling with ***" in result.stdout
    assert "tok-1234567890" not in result.stdout + result.stderr


def test_ctrl_c_leaves_nothing(backend: str, tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(
        "import time, minimodal\n"
        "app = minimodal.App()\n"
        "@app.function()\n"
        "def wait(n):\n"
        "    print('waiting', flush=True)\n"
        "    time.sleep(600)\n"
        "@app.local_entrypoint()\n"
        "def main():\n"
        "    list(wait.map(range(2)))\n"
    )
    with started(script, MINIMODAL_BACKEND=backend) as process:
        assert process.stdout
        assert process.stdout.readline() == "wait | waiting\n"
        os.kill(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "stopping (again to force)")
