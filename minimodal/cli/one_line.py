"""`OneLine`: the progress of one long job, as a line that is written over on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from minimodal.progress import shown_seconds

from .terminal import wants_motion


class OneLine:
    """`say` is for what the reader should keep, `detail` for what passes by: the newest is shown.

    Where there is no terminal, details are left out; `verbose` prints them all.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._moving = wants_motion(sys.stderr) and not quiet and not verbose
        self._began = time.monotonic()
        self._drawn = False

    def __enter__(self) -> OneLine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wipe()

    def say(self, line: str) -> None:
        if not self._quiet:
            self._wipe()
            print(line, file=sys.stderr, flush=True)

    def detail(self, line: str) -> None:
        if self._verbose and not self._quiet:
            print(line, file=sys.stderr, flush=True)
        elif self._moving:
            width = shutil.get_terminal_size().columns - 1
            passed = shown_seconds(time.monotonic() - self._began)
            shown = "".join(c if c.isprintable() else " " for c in f"  {passed}  {line}")
            print(f"\r\x1b[2K{shown[:width]}", end="", file=sys.stderr, flush=True)
            self._drawn = True

    def _wipe(self) -> None:
        if self._drawn:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._drawn = False
