"""A process in a sandbox as the engine holds it: bounded output to be pulled, input, an exit code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from anyio.abc import TaskStatus

from minimodal.errors import Error, InvalidError
from minimodal.protocols import Process

UNREAD_BYTES = 256 * 1024  # of one stream; then its process has to wait, as with a pipe
TIMED_OUT = -1
KILLED = 137
NOT_FOUND = 127
DRAIN_WITHIN = 0.5  # seconds for the last output of a process that was killed
CLOSE_WITHIN = 5.0
GONE = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)

Sink = Callable[[bytes], None]


class Output:
    """One stream. A reader says how far it has read: what was lost on the way is read again."""

    def __init__(self, sink: Sink | None = None) -> None:
        self._sink = sink  # None: kept for readers
        self._unread = bytearray()
        self._start = 0  # position of the first unread byte
        self._ended = False
        self._changed = anyio.Event()

    @property
    def full(self) -> bool:
        return len(self._unread) >= UNREAD_BYTES

    async def pump(self, stream: Any) -> None:
        """Take what the process writes, as far as it is read. Ends with the stream."""
        with suppress(*GONE):
            while True:
                data = await stream.receive(UNREAD_BYTES // 4)
                if self._sink is not None:
                    self._sink(data)
                    continue
                self._unread += data
                self._wake()
                while self.full:
                    await self._changed.wait()
        self.end()

    async def read(self, at: int) -> tuple[int, bytes]:
        """(position, bytes) from `at` on, waiting for at least one; no bytes at the end.

        What lies before `at` is forgotten; -1 goes on where the last reader was.
        """
        if at > self._start + len(self._unread):
            raise InvalidError("there is not that much output yet")
        if at > self._start:
            del self._unread[: at - self._start]
            self._start = at
            self._wake()
        while not self._unread and not self._ended:
            await self._changed.wait()
        return self._start, bytes(self._unread)

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class SandboxProcess:
    """`run` is its one task. Ends with the task group that it was started in."""

    def __init__(self, process_id: str, stdout: Sink | None, stderr: Sink | None) -> None:
        self.id = process_id
        self.outputs = {1: Output(stdout), 2: Output(stderr)}
        self.returncode: int | None = None
        self.ended = anyio.Event()  # its exit code is known
        self.drained = anyio.Event()  # and its output has been taken
        self._process: Process | None = None
        self._writing = anyio.Lock()
        self._scope = anyio.CancelScope()

    async def run(
        self,
        start: Callable[[], Awaitable[Process]],
        timeout: float | None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start it and move its output until it has ended. Raises before it has started only."""
        try:
            self._process = await start()
        except OSError as error:  # as a shell says that there is no such program
            self.outputs[2] = Output()
            words = f"{error.filename or 'exec'}: {error.strerror}\n"
            self.outputs[2]._unread += words.encode()
            self._finish(NOT_FOUND)
            self._close()
            task_status.started()
            return
        task_status.started()
        try:
            with self._scope:
                await self._attend(self._process, timeout)
        finally:
            self._finish(KILLED)
            self._close()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WITHIN):
                with suppress(*GONE, OSError, Error):  # its container may be gone by now
                    await self._process.aclose()

    async def _attend(self, process: Process, timeout: float | None) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.outputs[1].pump, process.stdout)
            tasks.start_soon(self.outputs[2].pump, process.stderr)
            with anyio.move_on_after(timeout) as limit:
                self._finish(await process.wait())
            if limit.cancelled_caught:
                await process.kill()
                self._finish(TIMED_OUT)
                tasks.cancel_scope.deadline = anyio.current_time() + DRAIN_WITHIN

    def _finish(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self.ended.set()

    def _close(self) -> None:
        for output in self.outputs.values():
            output.end()
        self.drained.set()

    async def write(self, data: bytes, eof: bool) -> None:
        """Give it input, waiting until it takes it. Raises ValueError where it does not any more."""
        async with self._writing:
            if data and self.returncode is not None:
                raise ValueError("its stdin is closed: it has ended")
            if self._process is None:
                return  # it never ran
            try:
                if data:
                    await self._process.stdin.send(data)
                if eof:
                    await self._process.stdin.aclose()
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                if data:
                    raise ValueError("its stdin is closed: it has ended or takes no more") from None

    async def kill(self) -> None:
        if self._process is not None and self.returncode is None:
            await self._process.kill()

    def forget(self) -> None:
        """Nobody reads it any more."""
        self._scope.cancel()
