"""The examples run for real, on every backend that works here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment, started

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(backend: str, example: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "minimodal", "run", str(EXAMPLES / example), *arguments],
        env=environment({"MINIMODAL_BACKEND": backend}),
        capture_output=True,
        text=True,
        timeout=55,
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
    "cron_jobs_example.py": "done",
    "parallel_etl.py": "Quito",
    "job_queue.py": "12 squared is 144",
}


@pytest.mark.parametrize("example", ENDS)
def test_example(backend: str, example: str) -> None:
    if backend == "process" and example == "volumes_example.py":
        pytest.skip("plain processes cannot mount a volume at an absolute path")
    if backend == "docker" and example != "example.py":
        pytest.skip("what it shows is tested with docker elsewhere; a start takes a second")
    result = run(backend, example)
    assert result.returncode == 0, result.stderr
    assert ENDS[example] in result.stdout.splitlines()[-1]


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
