"""A process with all three streams, as `Container.exec` gives it. Shared by bubblewrap and process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc

LAST_WORD_WITHIN = 2.0  # seconds


class PipedProcess:
    """Its streams, its exit code (128 + n for signal n), and a way to end it."""

    def __init__(self, process: anyio.abc.Process, last_word: int = signal.SIGKILL) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process = process
        self._last_word = last_word
        self.closed = False
        self.stdin = process.stdin
        self.stdout = process.stdout
        self.stderr = process.stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def kill(self) -> None:
        """It leads a session: what it started and did not leave that goes with it."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, self._last_word)
            with anyio.move_on_after(LAST_WORD_WITHIN):
                await self._process.wait()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()

    async def aclose(self) -> None:
        if self._process.returncode is None:
            with anyio.move_on_after(2 * LAST_WORD_WITHIN, shield=True):
                await self.kill()
        await self._process.aclose()  # its streams' own aclose leaves their pipes open
        self.closed = True


async def start(
    argv: Sequence[str], last_word: int = signal.SIGKILL, **options: Any
) -> PipedProcess:
    """Spawned by the loop, so on its own thread: the death signal follows the thread that forked.

    `last_word`: the signal on which it ends, and ends what it stands for.
    """
    process = await anyio.open_process(argv, start_new_session=True, **options)
    return PipedProcess(process, last_word)
