"""One process that we spawned and own: its end, and the tail of what it printed.

Spawned on the loop's own thread, always: the signal that ends a child with its parent follows the
*thread* that forked it. `Popen` uses vfork here, so this takes about a millisecond whatever the
size of the process that holds the engine.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import anyio

from minimodal.errors import LaunchError
from minimodal.types import ExitReason

TAIL_BYTES = 8192
_CHUNK_BYTES = 64 * 1024
_DRAIN_SECONDS = 0.2


class Command(NamedTuple):
    """What to spawn. `env` is the whole environment."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    pass_fds: tuple[int, ...] = ()
    stdin: int | None = None  # None: nothing to read
    uid: int | None = None  # to run as, with the group of that number and no others
    umask: int = -1  # the engine's own
    output: Callable[[bytes], None] | None = None  # told of all that it prints


class Child:
    """A running process. `tail` holds the end of its stdout and stderr, for error messages."""

    def __init__(self, process: subprocess.Popen[bytes], tail: _Tail) -> None:
        self.pid = process.pid
        self._process = process
        self._tail = tail
        self._ended = anyio.Event()
        self._code: int | None = None
        self._loop = asyncio.get_running_loop()
        self._pidfd = -1
        if sys.platform == "linux":
            self._pidfd = os.pidfd_open(process.pid)
            self._loop.add_reader(self._pidfd, self._reap)
        else:  # no pidfd: a thread waits, and tells the loop
            threading.Thread(target=self._wait_in_thread, daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    @property
    def tail(self) -> str:
        return self._tail.text()

    async def wait(self) -> ExitReason:
        """Wait for the end, and shortly for the last output: grandchildren may keep the pipe."""
        await self._ended.wait()
        with anyio.move_on_after(_DRAIN_SECONDS):
            await self._tail.closed.wait()
        return exit_reason(self._code, self.tail)

    def signal(self, number: int) -> None:
        if not self.ended:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Signal the process group that it leads, while it is there to keep the group's number."""
        if not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _reap(self) -> None:
        # Not Popen.poll: it reports success where other code of this process (it may be the
        # user's script) took the status with os.wait.
        options = os.WEXITED | os.WNOHANG
        try:
            found = os.waitid(os.P_PIDFD, self._pidfd, options | os.WNOWAIT)
            if found is None:
                return
            # What it started goes with it: a sandbox that is not yet set up knows no other bond.
            self.signal_group(signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._pidfd, options)
        except ChildProcessError:
            self._finish(None)
            return
        exited = found.si_code == os.CLD_EXITED
        self._finish(found.si_status if exited else -found.si_status)

    def _wait_in_thread(self) -> None:
        code = self._process.wait()
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            self._loop.call_soon_threadsafe(self._finish, code)

    def _finish(self, code: int | None) -> None:
        self._close_pidfd()
        self._code = code
        self._process.returncode = 0 if code is None else code  # so that Popen does not reap
        self._ended.set()

    def _close_pidfd(self) -> None:
        if self._pidfd != -1:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    async def aclose(self) -> None:
        """Kill it if it runs, and reap it."""
        self.signal_group(signal.SIGKILL)
        self.signal(signal.SIGKILL)
        with anyio.move_on_after(5, shield=True):
            await self._ended.wait()
        self._close_pidfd()
        self._tail.close()


@asynccontextmanager
async def spawn(command: Command) -> AsyncIterator[Child]:
    """Start a process whose output is drained. It is gone after the block."""
    reader, writer = os.pipe()
    tail = _Tail(reader, command.output)
    try:
        process = _start(command, writer)
    except OSError as error:
        tail.close()
        raise LaunchError(f"{command.argv[0]} did not start: {error}") from error
    finally:
        os.close(writer)
    child = Child(process, tail)
    try:
        yield child
    finally:
        await child.aclose()


def _start(command: Command, output: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command.argv,
        env=dict(command.env),
        cwd=command.cwd,
        pass_fds=command.pass_fds,
        stdin=subprocess.DEVNULL if command.stdin is None else command.stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        # With these Popen forks instead of vfork.
        user=command.uid,
        group=command.uid,
        extra_groups=None if command.uid is None else [],
        umask=command.umask,
    )


def exit_reason(code: int | None, detail: str) -> ExitReason:
    """`code` as Popen has it: negative for a signal, None for unknown."""
    if code is None:
        return ExitReason(detail=detail or "its exit status was taken by other code of the host")
    if code < 0:
        return ExitReason(signal=-code, detail=detail)
    return ExitReason(code=code, detail=detail)


class _Tail:
    """Reads a pipe from the first byte, so that the child never blocks on it, and keeps the end.

    Not `connect_read_pipe`: cancelled, uvloop closes the descriptor and leaves Python's file object
    to close the same number again, which by then is another's.
    """

    def __init__(self, fd: int, output: Callable[[bytes], None] | None) -> None:
        self.closed = anyio.Event()
        self._output = output
        self._kept = bytearray()
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if data and self._output is not None:
            self._output(data)
        self._kept += data[-TAIL_BYTES:]
        if len(self._kept) > TAIL_BYTES:
            del self._kept[:-TAIL_BYTES]
        if not data:
            self.close()

    def close(self) -> None:
        if self._fd != -1:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            self.closed.set()

    def text(self) -> str:
        return self._kept.decode(errors="backslashreplace").strip()
