"""A process started in a running container: three byte streams, an exit code, a way to end it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, TaskGroup, TaskStatus

from minimodal.errors import LaunchError
from minimodal.types import new_id

from .docker_api import DockerApi
from .docker_requests import DockerFailure, Stream

UNREAD_BYTES = 1 << 20  # of one stream; then the process has to wait, as with a pipe
MARK = "MINIMODAL_PROCESS"  # in its environment, and in that of all that it starts

# A process that has just been started is not to be found yet.
KILL_PATIENCE = (0.1, 0.3, 1.0, 2.0)
# Again until nothing is found: a process that forks while we look would escape a single pass.
KILL = """
while :; do
    found=
    for p in /proc/[0-9]*; do
        grep -q MARK $p/environ 2>/dev/null && kill -9 ${p#/proc/} 2>/dev/null && found=1
    done
    [ -z "$found" ] && break
done
"""


class Output(ByteReceiveStream):
    """What the process writes to one of its streams. Bounded: an unread stream holds it up."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._ended = self._closed = self._lossy = False
        self._changed = anyio.Event()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        while not self._unread:
            if self._closed:
                raise anyio.ClosedResourceError
            if self._ended:
                raise anyio.EndOfStream
            await self._changed.wait()
        chunk = bytes(self._unread[:max_bytes])
        del self._unread[:max_bytes]
        self._wake()
        return chunk

    async def aclose(self) -> None:
        """What the process still writes is thrown away."""
        self._closed = True
        self._unread.clear()
        self._wake()

    @property
    def _full(self) -> bool:
        return len(self._unread) >= UNREAD_BYTES

    async def feed(self, data: bytes) -> None:
        while self._full and not self._closed and not self._lossy:
            await self._changed.wait()
        if not self._closed and not self._full:
            self._unread += data
            self._wake()

    def overflow(self) -> None:
        """From here on, what does not fit is thrown away."""
        self._lossy = True
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


class Input(ByteSendStream):
    """The process's stdin."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, item: bytes) -> None:
        await self._stream.write(item)

    async def aclose(self) -> None:
        self._stream.write_eof()


class DockerProcess:
    """A `Process`. Ends with its container; `kill` ends it and all that it started."""

    stdin: Input

    def __init__(self, api: DockerApi, container: str) -> None:
        self.stdout = Output()
        self.stderr = Output()
        self._api = api
        self._container = container
        self._mark = new_id("exec")
        self._code: int | None = None
        self._ended = anyio.Event()

    async def wait(self) -> int:
        """Its exit code, once its output is closed; -1 if its container or the engine went away."""
        await self._ended.wait()
        return -1 if self._code is None else self._code

    async def kill(self) -> None:
        """SIGKILL to the process and its descendants: Docker has no request for it.

        Docker neither ends a process nor removes its container while output waits to be read.
        """
        self.stdout.overflow()
        self.stderr.overflow()
        for patience in KILL_PATIENCE:
            await self._kill_marked()
            with anyio.move_on_after(patience):
                await self._ended.wait()
                return

    async def _kill_marked(self) -> None:
        script = KILL.replace("MARK", f"{MARK}={self._mark}")
        try:
            async with self._api.exec(self._container, ("sh", "-c", script), env={}) as (_, stream):
                while await stream.read() is not None:
                    pass
        except DockerFailure as error:
            if error.status not in (404, 409):  # no such container, or it does not run
                raise LaunchError(f"the process could not be ended: {error}") from error

    async def aclose(self) -> None:
        await self.stdout.aclose()
        await self.stderr.aclose()
        if not self._ended.is_set():
            await self.kill()

    async def run(
        self,
        command: tuple[str, ...],
        env: Mapping[str, str],
        workdir: str | None,
        *,
        task_status: TaskStatus[None],
    ) -> None:
        """Start it and move its output until it has ended."""
        marked = {**env, MARK: self._mark}
        try:
            async with self._api.exec(
                self._container, command, env=marked, workdir=workdir, stdin=True
            ) as (exec_id, stream):
                self.stdin = Input(stream)
                task_status.started()
                await self._move(stream)
                with anyio.move_on_after(5):
                    self._code = await self._exit_code(exec_id)
        finally:
            self.stdout.end()
            self.stderr.end()
            self._ended.set()

    async def _move(self, stream: Stream) -> None:
        while (message := await stream.read()) is not None:
            await (self.stderr if message[0] == 2 else self.stdout).feed(message[1])

    async def _exit_code(self, exec_id: str) -> int | None:
        """The stream may end a moment before the engine knows the code."""
        for delay in (0.01, 0.03, 0.1, 0.3, 1.0):
            try:
                state = await self._api.exec_state(exec_id)
            except DockerFailure:
                return None
            if not state.get("Running") and state.get("ExitCode") is not None:
                return int(state["ExitCode"])
            await anyio.sleep(delay)
        return None


async def open_process(
    api: DockerApi,
    container: str,
    tasks: TaskGroup,
    command: tuple[str, ...],
    *,
    env: Mapping[str, str],
    workdir: str | None,
) -> DockerProcess:
    """Start a process. Raises LaunchError if the container does not run."""
    process = DockerProcess(api, container)
    try:
        await tasks.start(process.run, command, env, workdir)
    except DockerFailure as error:
        raise LaunchError(f"{shlex.join(command)} did not start: {error}") from error
    return process
