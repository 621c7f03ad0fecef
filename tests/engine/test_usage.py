"""What a container says that it uses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minimodal.agent.usage import usage
from minimodal.engine.usage import Usage
from minimodal.gateway.dashboard.sections import health
from minimodal.gateway.dashboard.snapshot import Snapshot

EATS = "kept = bytearray(b'x' * (64 << 20)); print(flush=True); input()"


@pytest.fixture
def child() -> Iterator[int]:
    """A process below this one, of another thread, that has 64 MiB."""
    with ThreadPoolExecutor(1) as thread:
        start = thread.submit(
            subprocess.Popen,
            [sys.executable, "-c", EATS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with start.result() as process:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
            process.communicate()


@pytest.fixture
def no_lists(tmp_path: Path) -> str:
    """/proc of a kernel without CONFIG_PROC_CHILDREN."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").symlink_to(f"/proc/{pid}/stat")
    return str(tmp_path)


def _memory(words: str) -> int:
    return int(words.split()[1])


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_children_count_also_where_the_kernel_lists_none(child: int, no_lists: str) -> None:
    least = _resident(os.getpid()) / 2 + (64 << 20)
    listed, walked = usage(), usage(no_lists)
    assert least < _memory(listed)
    assert _memory(walked) == pytest.approx(_memory(listed), rel=0.1)
    assert float(walked.split()[0]) >= float(listed.split()[0]) > 0


def test_without_proc_nothing_is_said_rather_than_zero(tmp_path: Path) -> None:
    assert usage(str(tmp_path)) == usage(str(tmp_path / "none")) == ""
    told = Usage()
    told.add("", 1.0)
    assert (told.cpu, told.memory) == (None, None)
    row = {"memory": told.memory, "ended": None}
    shown = str(health(Snapshot(0.0, 0.0, {"container.list": {"containers": [row]}})))
    assert "ready / all" in shown
    assert "MiB" not in shown
    row["memory"] = 3 << 20
    assert "ready / all, 3 MiB" in str(
        health(Snapshot(0.0, 0.0, {"container.list": {"containers": [row]}}))
    )
