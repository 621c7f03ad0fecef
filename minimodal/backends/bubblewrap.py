"""Containers as bubblewrap sandboxes: namespaces without root and without a daemon.

Owns the life of a sandbox: plan, spawn, confine, run, end. It isolates files, processes and on
request the network, and shares the kernel and the host's /usr: it is for your own code.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from minimodal.engine_lock import hold_engine_lock, is_alive
from minimodal.errors import ConflictError, LaunchError
from minimodal.home import Home
from minimodal.images.bubblewrap_builder import BubblewrapBuilder, open_bubblewrap_builder
from minimodal.images.build import Objects
from minimodal.images.in_use import hold
from minimodal.layers import ImageSpec
from minimodal.protocols import Container, ProtocolFactory, Report
from minimodal.types import Capabilities, ContainerSpec, ImageRef, new_id

from . import bwrap_probe, cgroup, sockets
from .bwrap_probe import Bwrap
from .child import Child, Command, spawn
from .identity import Identity, open_identity
from .rlimit import limited
from .sandbox import Sandbox
from .sandbox_plan import WALLS, Plan, Site, arguments_fd, plan
from .sockets import SocketDirectories
from .system_files import write_accounts

_START_SECONDS = 20.0


@asynccontextmanager
async def open_backend(home: Home, config: Any) -> AsyncIterator[BubblewrapBackend]:
    """Raises RuntimeUnavailable with the reason and the way out where bwrap cannot work."""
    engine_id = getattr(config, "engine_id", None) or new_id("en")
    async with AsyncExitStack() as stack:
        if not is_alive(home, engine_id):  # used without an engine: `minimodal doctor`, tests
            stack.enter_context(hold_engine_lock(home, engine_id))
        found = await to_thread.run_sync(bwrap_probe.find_bwrap)
        identity = await stack.enter_async_context(open_identity())
        bwrap = stack.enter_context(bwrap_probe.opened(found, identity))
        bwrap = await to_thread.run_sync(_probe, bwrap, identity)
        hierarchies = await to_thread.run_sync(_sweep, home)
        groups = cgroup.Groups(home, engine_id, hierarchies)
        directories = SocketDirectories(home, engine_id)
        stack.callback(groups.remove)
        stack.callback(directories.remove)
        accounts = directories.path / "etc"
        passwd, group = write_accounts(accounts)
        site = Site(home, identity.arguments, passwd, group, dict(os.environ))
        builder = await stack.enter_async_context(
            open_bubblewrap_builder(
                home, bwrap.path, identity.host_uid, os.environ, Objects.of(config)
            )
        )
        yield BubblewrapBackend(bwrap, identity, groups, directories, site, builder)


def _probe(bwrap: Bwrap, identity: Identity) -> Bwrap:
    from .rootfs import RootFiles, arguments

    # A mount below /opt makes it an overlay, as in every container.
    files = RootFiles(binds=[(Path("/usr/bin"), "/opt/minimodal/probe")])
    return bwrap_probe.probe(bwrap, identity, [*WALLS, *arguments(files)])


def _sweep(home: Home) -> tuple[cgroup.Hierarchy, ...]:
    hierarchies = cgroup.own_hierarchies()
    cgroup.sweep(home, hierarchies)
    sockets.sweep(home)
    return hierarchies


class BubblewrapBackend:
    """See `protocols.Backend`. Made by `open_backend`."""

    name = "bubblewrap"

    def __init__(
        self,
        bwrap: Bwrap,
        identity: Identity,
        groups: cgroup.Groups,
        directories: SocketDirectories,
        site: Site,
        builder: BubblewrapBuilder,
    ) -> None:
        self._bwrap = bwrap
        self._identity = identity
        self._groups = groups
        self._directories = directories
        self._site = site
        self._builder = builder

    @property
    def file_owner(self) -> int | None:
        return None if self._identity.own_files else self._identity.host_uid

    def note_python(self, image: ImageRef, version: str) -> None:
        """Its interpreter is one of this machine, and was known before."""

    def describe(self) -> Capabilities:
        by_group = self._groups.controllers
        uid = self._identity.host_uid
        return Capabilities(
            name=f"bubblewrap {self._bwrap.version}",
            files="the host's /usr, /etc, /opt and /var read-only, the image's layers over them",
            processes=f"own pid, ipc and uts namespaces, no capabilities, uid {uid} of the host",
            network="shared with the host, or none on request"
            if self._bwrap.network
            else "shared with the host; it cannot be blocked here",
            memory="limited (cgroup)" if "memory" in by_group else "address space, not memory",
            cpu="limited (cgroup)" if "cpu" in by_group else "not limited",
            pids="limited (cgroup)" if "pids" in by_group else _pids_by_rlimit(self._identity),
            notes=(
                "shares the kernel with the host: for your own code",
                "servers share the host's ports, unless the network is blocked",
            ),
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
    ) -> AsyncIterator[Sandbox]:
        if spec.block_network and not self._bwrap.network:
            raise ConflictError("network namespaces are refused here; use the docker backend")
        async with AsyncExitStack() as stack:
            stack.enter_context(hold(self._site.home, spec.image.name))
            directory = stack.enter_context(self._directories.new())
            await stack.enter_async_context(sockets.serve(directory, connect))
            wanted, group = await to_thread.run_sync(self._prepare, spec, directory)
            stack.push_async_callback(_shielded, group.remove)
            start = _Start(self._bwrap, self._identity, wanted, group)
            stack.callback(start.close)
            child = await stack.enter_async_context(spawn(start.command()))
            pid = await start.init_pid(child)
            sandbox = Sandbox(
                spec, child, pid, group, self._identity, wanted, self._around(spec), self._keep
            )
            stack.push_async_callback(sandbox.aclose)
            start.go()
            yield sandbox

    def _around(self, spec: ContainerSpec) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
        controllers = self._groups.controllers
        return lambda command: limited(command, spec.resources, controllers, pids=True)

    async def _keep(self, sandbox: Sandbox, image: ImageSpec) -> None:
        from .sandbox_files import keep_files  # few sandboxes are kept

        digest = self._builder.digest_of(image)
        meta = {"host": self._builder.host}
        await keep_files(self._site.home, self._identity.host_uid, sandbox, digest, meta)

    def _prepare(self, spec: ContainerSpec, directory: Path) -> tuple[Plan, cgroup.Group]:
        wanted = plan(self._site, spec, directory, self._groups.controllers)
        return wanted, self._groups.make(spec.resources, self._identity.spawn_as)


async def _shielded(function: Any) -> None:
    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(function)


def _pids_by_rlimit(identity: Identity) -> str:
    return "limited for all containers together" if identity.as_root else "limited (rlimit)"


class _Start:
    """The descriptors that bwrap is started with, and the conversation over them."""

    def __init__(self, bwrap: Bwrap, identity: Identity, wanted: Plan, group: cgroup.Group) -> None:
        self._bwrap = bwrap
        self._identity = identity
        self._wanted = wanted
        self._group = group
        self._info, self._info_child = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._go_child, self._go = os.pipe2(os.O_CLOEXEC)
        self._open = {self._info, self._info_child, self._go_child, self._go}

    def command(self) -> Command:
        info = str(self._info_child)
        arguments = arguments_fd(["--info-fd", info, *self._wanted.options])
        self._open.add(arguments)
        bwrap = (self._bwrap.executable, "--args", str(arguments), "--", *self._command())
        return Command(
            argv=self._group.joined([*self._identity.prefix, *bwrap]),
            env=self._bwrap.env,  # the container's own is among the arguments
            cwd="/",
            pass_fds=(*self._identity.fds, *self._bwrap.fds, arguments, self._info_child),
            stdin=self._go_child if self._wanted.gated else None,
            uid=self._identity.spawn_as,
        )

    def _command(self) -> tuple[str, ...]:
        """While it is set up a sandbox does not notice the end of the engine. An agent then finds
        nobody to talk to and leaves; any other command must first read that it is meant to run."""
        if not self._wanted.gated:
            return self._wanted.command
        read = 'read -r go && [ "$go" = go ] && exec "$@" </dev/null'
        return ("/bin/sh", "-c", read, "sh", *self._wanted.command)

    async def init_pid(self, child: Child) -> int:
        """The pid, on the host, of the sandbox's first process. Raises LaunchError."""
        for fd in (self._info_child, self._go_child):
            self._close(fd)
        text = b""
        with anyio.move_on_after(_START_SECONDS):
            while True:
                await anyio.wait_readable(self._info)
                part = os.read(self._info, 4096)
                if not part:
                    break
                text += part
        try:
            return int(json.loads(text)["child-pid"])
        except (ValueError, KeyError):
            with anyio.move_on_after(1):
                await child.wait()
            raise LaunchError(f"the sandbox did not start: {child.tail or 'no answer'}") from None

    def go(self) -> None:
        """The engine can end the sandbox from here on: its command may run."""
        with suppress(BrokenPipeError):  # it reads no stdin, or has ended; `wait` says why
            os.write(self._go, b"go\n")

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def close(self) -> None:
        for fd in tuple(self._open):
            self._close(fd)
