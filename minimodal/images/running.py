"""One command of a build step: its output line by line, its tail for errors, its end in any case."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import anyio

from minimodal.backends import child
from minimodal.errors import LaunchError
from minimodal.protocols import Report

from .build import StepFailed

TAIL_LINES = 40
MAX_LINE_BYTES = 8192
STEP_TIMEOUT = 3600.0


class Command(NamedTuple):
    """What to run. `env` is the whole environment; `hidden` are words that output never shows."""

    argv: Sequence[str]
    env: Mapping[str, str]
    shown: str  # as errors name it
    cwd: str | None = None
    pass_fds: tuple[int, ...] = ()
    hidden: tuple[str, ...] = ()
    timeout: float = STEP_TIMEOUT


async def run(command: Command, report: Report) -> None:
    """Run to the end. Raises StepFailed if that is not exit code 0. Cancelled, it kills and reaps."""
    code, tail = await run_status(command, report)
    if code != 0:
        raise StepFailed(command.shown, code, tail)


async def run_status(command: Command, report: Report) -> tuple[int, str]:
    """The exit code, negative for a signal, and the tail of the output."""
    lines = Lines(report, command.hidden)
    wanted = child.Command(
        argv=command.argv,
        env=command.env,
        cwd=command.cwd,
        pass_fds=command.pass_fds,
        umask=0o022,  # what is built is for containers, which run as another user
        output=lines.feed,
    )
    try:
        async with child.spawn(wanted) as process:
            try:
                with anyio.fail_after(command.timeout):
                    ended = await process.wait()
            finally:
                process.signal_group(signal.SIGKILL)  # what it has left in its session
    except LaunchError as error:
        raise StepFailed(f"{command.shown}: {error}") from error
    except TimeoutError:
        lines.close()
        words = f"{command.shown}: still running after {command.timeout:.0f} s"
        raise StepFailed(words, None, lines.tail) from None
    lines.close()
    return ended.code if ended.code is not None else -(ended.signal or 1), lines.tail


class Lines:
    """Cuts output into lines of bounded length, hides secrets in them, and keeps the last ones."""

    def __init__(self, report: Report, hidden: Iterable[str]) -> None:
        self._report = report
        self._hidden = sorted({word for word in hidden if len(word) >= 4}, key=len, reverse=True)
        self._open = bytearray()
        self._kept: deque[str] = deque(maxlen=TAIL_LINES)

    @property
    def tail(self) -> str:
        return "\n".join(self._kept)

    def feed(self, chunk: bytes) -> None:
        self._open += chunk
        *whole, rest = bytes(self._open).split(b"\n")
        for line in whole:
            self._line(line)
        self._open = bytearray(rest)
        if len(rest) > MAX_LINE_BYTES:
            self.close()

    def close(self) -> None:
        if self._open:
            self._line(bytes(self._open))
            self._open = bytearray()

    def _line(self, line: bytes) -> None:
        # A progress bar redraws itself behind \r: the last state is what it says.
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode(errors="backslashreplace")
        text = text[:MAX_LINE_BYTES]
        for word in self._hidden:
            text = text.replace(word, "***")
        self._kept.append(text)
        self._report(text)
