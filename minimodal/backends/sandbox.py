"""One running bubblewrap sandbox: `protocols.Container`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.abc

from minimodal.errors import LaunchError
from minimodal.layers import ImageSpec
from minimodal.protocols import Process
from minimodal.types import ContainerSpec, ExitReason, ImageRef

from . import inner_tool, piped
from .cgroup import Group
from .child import Child
from .identity import Identity
from .piped import PipedProcess
from .sandbox_plan import Plan
from .userns_helper import SANDBOX_ID

_LAST_SIGNAL = 64
# Something of the host, or a mount below it, went between our look and bwrap's.
_WENT = ("bwrap: Can't bind mount", "bwrap: Can't find source path")


class Sandbox:
    """Made by the backend; ends with its block there."""

    def __init__(
        self,
        spec: ContainerSpec,
        child: Child,
        init_pid: int,
        group: Group,
        identity: Identity,
        plan: Plan,
        limited: Callable[[tuple[str, ...]], tuple[str, ...]],
        keep_files: Callable[[Sandbox, ImageSpec], Awaitable[None]],
    ) -> None:
        self._spec = spec
        self._child = child
        self._init_pid = init_pid
        self._init = _open_child(init_pid, child.pid)
        self._group = group
        self._identity = identity
        self._plan = plan
        self._limited = limited
        self._keep_files = keep_files
        self._processes: list[PipedProcess] = []

    def __repr__(self) -> str:
        return f"<Container {self.id} {'ended' if self._child.ended else 'running'}>"

    @property
    def id(self) -> str:
        return self._spec.id

    @property
    def image(self) -> ImageRef:
        return self._spec.image

    async def wait(self) -> ExitReason:
        return self._explain(await self._child.wait())

    async def kill(self) -> None:
        """All of it at once: the namespace's first process takes the others with it."""
        if self._init is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
        self._child.signal(signal.SIGKILL)

    def oom_kills(self) -> int:
        """How many processes were killed because of the memory limit, so far."""
        return self._group.oom_kills()

    async def exec(
        self, command: tuple[str, ...], *, env: Mapping[str, str], workdir: str | None
    ) -> Process:
        """Raises LaunchError if the sandbox has ended."""
        pid = self._first_process()
        request = {
            "pid": pid,
            "cgroups": self._group.doors,
            "own_network": self._spec.block_network,
            "change_uid": self._identity.as_root,
            "id": SANDBOX_ID,
            "workdir": workdir or self._plan.workdir,
            "command": list(self._limited(command)),
            "env": {**self._plan.env, **env},
        }
        fd = os.memfd_create("enter-request")
        try:
            os.write(fd, json.dumps(request).encode())
            os.lseek(fd, 0, os.SEEK_SET)
            script = str(Path(__file__).with_name("enter.py"))
            process = await piped.start(
                [sys.executable, "-I", "-S", script, str(fd)],
                last_word=signal.SIGTERM,
                pass_fds=[fd],
                env={},
            )
        finally:
            os.close(fd)
        self._processes = [each for each in self._processes if not each.closed]
        self._processes.append(process)
        return process

    async def dial(self, port: int) -> anyio.abc.ByteStream:
        """Its ports are the host's, unless it is cut off: then a process inside connects."""
        if self._spec.block_network:
            return await inner_tool.relayed(self, self._spec.image.python, port)
        return await anyio.connect_tcp("127.0.0.1", port)

    async def snapshot(self, image: ImageSpec) -> None:
        await self._keep_files(self, image)

    def _first_process(self) -> int:
        """The pid, on the host, of the process that the sandbox was made for. Not of its init:
        that did not pass an exec inside, so nobody may enter its namespaces."""
        with suppress(OSError, IndexError):
            path = f"/proc/{self._init_pid}/task/{self._init_pid}/children"
            return int(Path(path).read_text().split()[0])
        raise LaunchError(f"container {self.id} has ended")

    async def aclose(self) -> None:
        """Kill it, and wait until its last process is gone."""
        with anyio.CancelScope(shield=True):
            await self.kill()
            if self._init is not None:
                with anyio.move_on_after(5):
                    await anyio.wait_readable(self._init)
                os.close(self._init)
                self._init = None
            for process in self._processes:
                await process.aclose()

    def _explain(self, reason: ExitReason) -> ExitReason:
        code = reason.code
        if code is not None and 128 < code <= 128 + _LAST_SIGNAL:
            reason = reason._replace(code=None, signal=code - 128)  # bwrap's way to say it
        if reason.signal == signal.SIGKILL and self._group.oom_kills():
            reason = reason._replace(oom=True)
        if reason.detail.startswith(_WENT):
            reason = reason._replace(passing=True)
        return reason


def _open_child(pid: int, parent: int) -> int | None:
    """A pidfd of `pid` if it is a child of `parent`, so never of another that got its number."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    with suppress(OSError):
        stat = Path(f"/proc/{pid}/stat").read_text()
        if int(stat.rpartition(")")[2].split()[1]) == parent:
            return fd
    os.close(fd)
    return None
