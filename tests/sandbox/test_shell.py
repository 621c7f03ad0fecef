"""`minimodal shell`, with and without a terminal, and the example of sandboxes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import ptys
from tests.cli.conftest import environment
from tests.test_examples import run as run_example

PROGRAM = [sys.executable, "-m", "minimodal", "shell"]


@pytest.fixture(params=["process", pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)])
def leaves_nothing(request: pytest.FixtureRequest) -> str:
    """The name of a backend: engines of other processes look after themselves."""
    return str(request.param)


@pytest.fixture(autouse=True)
def host() -> None:
    """No engine in this process."""


def shell(*arguments: str, backend: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment({"MINIMODAL_BACKEND": backend}),
        input=typed,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def test_a_command_in_a_functions_image(backend: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import minimodal\n"
        "app = minimodal.App(image=minimodal.Image.debian_slim().env({'IMAGE': 'a'}))\n"
        "secret = minimodal.Secret.from_dict({'SECRET': 'c'})\n"
        "@app.function(env={'OWN': 'b'}, secrets=[secret])\n"
        "def f(): pass\n"
    )
    line = "read word; echo $IMAGE $OWN $SECRET $word; echo err >&2; exit 4"
    result = shell(f"{script}::f", "-c", line, backend=backend, typed="typed\n")
    assert (result.returncode, result.stdout, result.stderr) == (4, "a b c typed\n", "err\n")


def test_an_interactive_shell(backend: str) -> None:
    """A terminal is handed over: keys, its size, and Ctrl-C go to the other side."""
    with ptys.program("shell", MINIMODAL_BACKEND=backend, PS1="$ ") as person:
        person.expects(b"$ ", b"# ")
        person.types(b"stty size; test -t 0 && echo it is a $((1))tty\r")
        assert b"33 99" in person.expects(b"it is a 1tty")
        person.resizes(22, 88)
        person.types(b"stty size; echo the $((2))second\r")
        assert b"22 88" in person.expects(b"the 2second")
        # In one process: bash loses a Ctrl-C that comes while it hands the terminal to another.
        person.types(b"sh -c 'echo now it $((2))sleeps; exec sleep 600'\r")
        person.expects(b"it 2sleeps")
        person.types(b"\x03")
        person.types(b"exit 5\r")
        assert person.waits() == 5


def test_wrong_arguments(backend: str) -> None:
    for arguments, words in (
        (("no.py",), "no file no.py"),
        (("x.py", "--image", "python:3.11"), "not both"),
        (("--imgae", "x"), "--image"),
    ):
        result = shell(*arguments, backend=backend)
        assert result.returncode == 2
        assert words in result.stderr


def test_the_example(backend: str) -> None:
    """Plain processes cannot be cut off the network: there the example runs without that part."""
    options = ["--network"] if backend == "process" else []
    result = run_example(backend, "code_sandbox.py", *options)
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert lines["sum"] == "45"
    assert lines["error"] == "failed (1): ZeroDivisionError: division by zero"
    assert lines["endless"].startswith("stopped: it took")
    assert "memory" in lines["greedy"].lower()
    assert options or "unreachable" in lines["online"]
