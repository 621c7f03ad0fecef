"""How long a test waits for its platform."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import minimodal
from minimodal.testing import running_platform

app = minimodal.App("speed")

WITHIN = 0.3  # seconds, on a machine that does nothing else
PLAIN_START = 0.012  # seconds that a bare Python takes to start there


@app.function(serialized=True)  # no container has pytest
def nothing() -> None: ...


def seconds_of_a_plain_start() -> float:
    """What a bare Python takes now: how much of the machine we get."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-S", "-E", "-c", "pass"], check=True)
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "backend", ["process", pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)]
)
def test_the_first_result_comes_at_once(backend: str, scratch: Path) -> None:
    home = scratch / f"s-{backend}"
    times, plain = [], []
    for _ in range(6):
        plain.append(seconds_of_a_plain_start())
        started = time.perf_counter()
        with running_platform(home, backend), app.run():
            nothing.remote()
            times.append(time.perf_counter() - started)
    slower = max(1.0, statistics.median(plain) / PLAIN_START)
    assert statistics.median(times[1:]) < WITHIN * slower  # the first one fills the cache
