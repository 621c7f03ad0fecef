"""An app to deploy, and to look up from elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import minimodal

app = minimodal.App("shop")


@app.function()
def double(x: int) -> int:
    return 2 * x


@app.function()
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


@app.function()
def wait_for(path: str, marks: str) -> str:
    """Says that it runs, and waits for a file."""
    with open(marks, "a") as file:
        file.write(f"{os.getpid()}\n")
    while not Path(path).exists():
        time.sleep(0.01)
    return path


@app.cls()
class Counter:
    start: int = minimodal.parameter(default=5)

    @minimodal.method()
    def up(self, n: int) -> int:
        return self.start + n
