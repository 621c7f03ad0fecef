"""The real program that stays: `minimodal up` and its like, started and stopped by a test."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.conftest import environment

PATIENCE = 30.0


class Running:
    """A program whose output is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(stream,))
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]  # a text stream
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """The next line with that text in it. Fails with all that was said instead."""
        ended = 0
        while ended < 2:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                break
            if line is None:
                ended += 1
                continue
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"never said {text!r}:\n" + "\n".join(self.said))

    def rest(self) -> list[str]:
        """What it said until its end, that was not waited for."""
        for reader in self._readers:
            reader.join(timeout=PATIENCE)
        lines = [self._lines.get_nowait() for _ in range(self._lines.qsize())]
        return [line for line in lines if line is not None]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


@contextmanager
def running(
    home: Path, *arguments: str, cwd: Path | None = None, **environ: str
) -> Iterator[Running]:
    """`python -m minimodal` with arguments; whatever happens, it is gone after the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "minimodal", *arguments],
        env=environment({"MINIMODAL_HOME": str(home), **environ}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    program = Running(process)
    try:
        yield program
    finally:
        program.close()


def python(home: Path, code: str, *arguments: str) -> subprocess.Popen[str]:
    """A process of its own that runs some code; the caller ends it."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={
            **os.environ,
            "MINIMODAL_HOME": str(home),
            "MINIMODAL_BACKEND": "process",
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
