"""From nothing to the first result in a test, as the pytest plugin starts it.

    uv run python tests/benchmarks/bench_plugin.py [backend …]

The first platform of a home also makes what later ones find in its cache: it has a column of its own.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path

import minimodal
from minimodal.testing import running_platform

app = minimodal.App("bench")

ROUNDS = 10


@app.function()
def nothing() -> None:
    pass


def figures(home: Path, backend: str) -> tuple[float, float, float]:
    """Milliseconds until the engine runs, until the first result, and until all is gone."""
    times = [time.perf_counter()]
    with running_platform(home, backend):
        times.append(time.perf_counter())
        with app.run():
            nothing.remote()
            times.append(time.perf_counter())
    times.append(time.perf_counter())
    return (times[1] - times[0]) * 1e3, (times[2] - times[0]) * 1e3, (times[3] - times[2]) * 1e3


def main() -> None:
    print(f"{'ms':<24}{'engine':>8}{'result':>8}{'end':>8}")
    for backend in sys.argv[1:] or ["embedded", "process"]:
        with tempfile.TemporaryDirectory(prefix="mmb-") as home:
            first = figures(Path(home), backend)
            rounds = [figures(Path(home), backend) for _ in range(ROUNDS)]
        columns = zip(*rounds, strict=True)
        rows = {"first": first, "median": tuple(map(statistics.median, columns))}
        for name, row in rows.items():
            print(f"{backend + ', ' + name:<24}" + "".join(f"{value:>8.0f}" for value in row))


if __name__ == "__main__":
    main()
