"""The check for leftovers finds what it is there for."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading

import pytest

from tests import leftovers
from tests.leftovers import Leftovers


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.05)


def test_a_thread_a_process_and_a_file_are_found_and_then_gone() -> None:
    before = Leftovers.now(docker=False)
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="stray")
    thread.start()
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with tempfile.NamedTemporaryFile(), process:
        left = "\n".join(before.left_behind(docker=False))
        assert "thread stray" in left
        assert f"process {process.pid}" in left
        assert "temporary file tmp" in left
        assert process.stdin
        process.stdin.close()
        stop.set()
        thread.join()
        process.wait()
    assert before.left_behind(docker=False) == []


def test_a_daemon_that_left_its_parent_is_found() -> None:
    before = Leftovers.now(docker=False)
    daemon = "import os; os.fork() and os._exit(0); os.setsid(); print(os.getpid()); input()"
    process = subprocess.Popen(
        [sys.executable, "-uc", daemon], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        pid = process.stdout.readline().strip()
        process.wait()
        assert [each.split()[1] for each in before.left_behind(docker=False)] == [pid]
    assert before.left_behind(docker=False) == []
