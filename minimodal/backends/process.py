"""Containers as plain subprocesses, for systems without namespaces. No isolation: development only.

What it cannot honour (mounts at absolute paths, a blocked network, another runtime) is an error
that names the backends which can; it is never silently ignored.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio import to_thread

from minimodal.engine_lock import hold_engine_lock, is_alive
from minimodal.errors import ConflictError
from minimodal.home import Home
from minimodal.images.build import Objects
from minimodal.images.in_use import hold
from minimodal.images.process_builder import ProcessBuilder
from minimodal.layers import ImageSpec
from minimodal.protocols import Container, Process, ProtocolFactory, Report
from minimodal.types import Capabilities, ContainerSpec, ExitReason, ImageRef, new_id

from . import bundle, cgroup, piped, sockets
from .child import Child, Command, spawn
from .linked_root import make_root
from .network_settings import network_variables
from .piped import PipedProcess
from .rlimit import limited
from .sockets import SocketDirectories

log = logging.getLogger("minimodal.backends")

MARK = "MINIMODAL_CONTAINER_ID"  # in the environment of all that a container starts
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "USER", "LOGNAME", "SHELL", "TZ")
Around = Callable[[Sequence[str]], tuple[str, ...]]
_OTHERS = "use --backend docker or --backend bubblewrap"


@asynccontextmanager
async def open_backend(home: Home, config: Any) -> AsyncIterator[ProcessBackend]:
    """Works wherever Python does."""
    engine_id = getattr(config, "engine_id", None) or new_id("en")
    async with AsyncExitStack() as stack:
        if not is_alive(home, engine_id):
            stack.enter_context(hold_engine_lock(home, engine_id))
        hierarchies = await to_thread.run_sync(_sweep, home)
        await to_thread.run_sync(bundle.bundle, home)
        prefix = await to_thread.run_sync(_death_signal)
        groups = cgroup.Groups(home, engine_id, hierarchies)
        directories = SocketDirectories(home, engine_id)
        stack.callback(groups.remove)
        stack.callback(directories.remove)
        builder = ProcessBuilder(home, os.environ, Objects.of(config).secrets)
        yield ProcessBackend(home, groups, directories, prefix, builder)


def _sweep(home: Home) -> tuple[cgroup.Hierarchy, ...]:
    sockets.sweep(home)
    hierarchies = cgroup.own_hierarchies()
    cgroup.sweep(home, hierarchies)
    return hierarchies


def _death_signal() -> tuple[str, ...]:
    """What to put before a command so that it ends with the thread that started it, if anything."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    prefix = (found, "--pdeathsig", "KILL", "--") if found else ()
    if prefix:
        done = subprocess.run([*prefix, "true"], capture_output=True, timeout=10, check=False)
        return prefix if done.returncode == 0 else ()
    return ()


class ProcessBackend:
    """See `protocols.Backend`. Made by `open_backend`."""

    name = "process"

    def __init__(
        self,
        home: Home,
        groups: cgroup.Groups,
        directories: SocketDirectories,
        prefix: tuple[str, ...],
        builder: ProcessBuilder,
    ) -> None:
        self._home = home
        self._groups = groups
        self._directories = directories
        self._prefix = prefix
        self._builder = builder

    @property
    def file_owner(self) -> int | None:
        return None  # volumes cannot be mounted here

    def note_python(self, image: ImageRef, version: str) -> None:
        """Its interpreter is one of this machine, and was known before."""

    def describe(self) -> Capabilities:
        by_group = self._groups.controllers
        return Capabilities(
            name="process",
            files="not isolated: everything of the user",
            processes="not isolated; killed by session, cgroup or environment mark",
            network="not isolated, cannot be blocked",
            memory="limited (cgroup)" if "memory" in by_group else "address space, not memory",
            cpu="limited (cgroup)" if "cpu" in by_group else "not limited",
            pids="limited (cgroup)" if "pids" in by_group else "not limited",
            notes=("no isolation: for development only",),
        )

    async def build(self, image: ImageSpec, report: Report) -> ImageRef:
        return await self._builder.build(image, report)

    def launch(
        self, spec: ContainerSpec, connect: ProtocolFactory
    ) -> AbstractAsyncContextManager[Container]:
        return self._launch(spec, connect)

    @asynccontextmanager
    async def _launch(
        self, spec: ContainerSpec, connect: ProtocolFactory
    ) -> AsyncIterator[ProcessContainer]:
        if spec.block_network:
            raise ConflictError(f"plain processes cannot be cut off the network; {_OTHERS}")
        if spec.runtime:
            raise ConflictError(f"runtime={spec.runtime!r} needs --backend docker")
        async with AsyncExitStack() as stack:
            stack.enter_context(hold(self._home, spec.image.name))
            directory = stack.enter_context(self._directories.new())
            socket = await stack.enter_async_context(sockets.serve(directory, connect))
            root, group = await to_thread.run_sync(self._prepare, spec, directory)
            stack.push_async_callback(_shielded, group.remove)
            wanted = self._command(spec, socket, root, group)
            child = await stack.enter_async_context(spawn(wanted))
            container = ProcessContainer(spec, child, group, wanted, self._around(spec, group))
            stack.push_async_callback(container.aclose)
            yield container

    def _prepare(self, spec: ContainerSpec, directory: Path) -> tuple[Path, cgroup.Group]:
        root = make_root(self._home, directory / "root", (*spec.image.mounts, *spec.mounts))
        return root, self._groups.make(spec.resources)

    def _command(
        self, spec: ContainerSpec, socket: Path, root: Path, group: cgroup.Group
    ) -> Command:
        python = spec.image.python
        agent = bundle.agent_command(python, str(socket), bundle.bundle(self._home))
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        network = network_variables(os.environ)
        env = {**kept, **network, **dict(spec.image.env), **spec.env}
        env |= {
            MARK: spec.id,
            "MINIMODAL_SOCKET": str(socket),
            "PYTHONUNBUFFERED": "1",
            "MINIMODAL_SOURCES_DIR": str(root),
        }
        workdir = spec.workdir or spec.image.workdir
        inside = workdir if workdir and os.path.isdir(workdir) else str(root)
        return Command(
            self._around(spec, group)(spec.command or (*spec.image.entrypoint, *agent)), env, inside
        )

    def _around(self, spec: ContainerSpec, group: cgroup.Group) -> Around:
        """Limits a command, and lets it end with the engine."""

        def around(command: Sequence[str]) -> tuple[str, ...]:
            controllers = self._groups.controllers
            bounded = limited(command, spec.resources, controllers, pids=False)
            return (*self._prefix, *group.joined(bounded))

        return around


async def _shielded(function: Any) -> None:
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(function)


class ProcessContainer:
    """One subprocess and what it started: `protocols.Container`."""

    def __init__(
        self,
        spec: ContainerSpec,
        child: Child,
        group: cgroup.Group,
        command: Command,
        around: Around,
    ) -> None:
        self.id = spec.id
        self._child = child
        self._group = group
        self._command = command
        self._around = around
        self._processes: list[PipedProcess] = []

    def __repr__(self) -> str:
        return f"<Container {self.id} {'ended' if self._child.ended else 'running'}>"

    async def wait(self) -> ExitReason:
        reason = await self._child.wait()
        if reason.signal == signal.SIGKILL and self._group.oom_kills():
            return ExitReason(signal=reason.signal, oom=True, detail=reason.detail)
        return reason

    async def kill(self) -> None:
        self._child.signal_group(signal.SIGKILL)

    def oom_kills(self) -> int:
        """How many processes were killed because of the memory limit, so far."""
        return self._group.oom_kills()

    async def exec(
        self, command: tuple[str, ...], *, env: Mapping[str, str], workdir: str | None
    ) -> Process:
        """One more process beside it, with its environment and directory."""
        process = await piped.start(
            self._around(command),
            env={**self._command.env, **env},
            cwd=workdir or self._command.cwd,
        )
        self._processes = [each for each in self._processes if not each.closed]
        self._processes.append(process)
        return process

    async def dial(self, port: int) -> anyio.abc.ByteStream:
        return await anyio.connect_tcp("127.0.0.1", port)

    async def snapshot(self, image: ImageSpec) -> None:
        raise ConflictError(f"plain processes have no file system of their own to keep; {_OTHERS}")

    async def aclose(self) -> None:
        """Kill it and whatever it started that left its session."""
        with anyio.CancelScope(shield=True):
            await self.kill()
            for process in self._processes:
                await process.aclose()
            await self._child.aclose()
            left = await to_thread.run_sync(_kill_marked, self.id)
            if left:
                log.info("container %s left %d processes behind; they were killed", self.id, left)


def _kill_marked(container_id: str) -> int:
    """Kill what still carries the container's mark: a daemon that made a session of its own."""
    mark = f"{MARK}={container_id}".encode()
    found = 0
    for entry in os.scandir("/proc") if sys.platform == "linux" else ():
        with suppress(OSError):
            if entry.name.isdigit() and mark in Path(entry.path, "environ").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
                found += 1
    return found
