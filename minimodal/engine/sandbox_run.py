"""One sandbox from its start to its end: a container that is kept, and the processes inside it.

The user's command is a process like the others, so that its streams are too; when it ends, the
sandbox does.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
from anyio.abc import TaskGroup, TaskStatus

from minimodal.backends import inner_tool
from minimodal.errors import Error, LaunchError, ResourceExhaustedError, SandboxTerminatedError
from minimodal.layers import ImageSpec, Snapshot
from minimodal.protocols import Container, Process
from minimodal.sandbox_spec import ProcessSpec, SandboxSpec
from minimodal.types import ContainerSpec, ImageRef, Mount, new_id

from .masking import Mask
from .sandbox_streams import SandboxProcess, Sink
from .tunnels import Traffic, serve

if TYPE_CHECKING:
    from .engine import Engine

MAX_PROCESSES = 64  # that run at a time in one sandbox
KEPT_PROCESSES = 64  # that have ended and can still be read
START_WITHIN = 30.0  # seconds
LINGER = 1.0  # seconds for the last output, where something holds it open
MAIN = "main"
TIMEOUT_CODE, TERMINATED_CODE = 124, 137


class End(NamedTuple):
    """How it ended. `state`: exited, timeout, terminated or lost."""

    state: str
    returncode: int
    words: str


class SandboxRun:
    """Owned by `Sandboxes`; `run` is its one task."""

    def __init__(self, engine: Engine, spec: SandboxSpec, image: ImageRef) -> None:
        self.id = new_id("sb")
        self.spec = spec
        self.tags = dict(spec.tags)
        self.end: End | None = None
        self.ready = False  # its probe has succeeded
        self.ended = anyio.Event()  # how it ends is known
        self.gone = anyio.Event()  # and its container is gone
        self.ports: dict[int, int] = {}
        self.processes: dict[str, SandboxProcess] = {}
        self._engine = engine
        self._image = image
        self._container: Container | None = None
        self._tasks: TaskGroup
        self._traffic = Traffic()
        self._hidden: set[str] = set()  # values of secrets, not to be seen in logs
        self._kept = anyio.Event()  # the keeper runs, so processes can join it; or it never will
        self._hurry = False  # do not wait for readers
        self._used_at = engine.loop.time()

    @property
    def label(self) -> str:
        return self.spec.name or self.id

    @property
    def running(self) -> bool:
        return self._container is not None and self.end is None

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Start it and stay until it is gone. Raises before it has started only."""
        engine, spec = self._engine, self.spec
        engine.planner.reserve(self.id, spec.resources)
        started = False
        failure: Error | OSError | None = None
        try:
            async with AsyncExitStack() as stack:
                given = await stack.enter_async_context(
                    engine.objects.given(self.id, (), spec.volumes)
                )
                launched = engine.backend.launch(self._container_spec(given.mounts), self._accept)
                self._container = await stack.enter_async_context(launched)
                async with anyio.create_task_group() as self._tasks:
                    try:
                        await self._open(self._container)
                    except (Error, OSError) as error:  # raised below: the group would wrap it
                        failure = error
                    else:
                        started = True
                        task_status.started()
                        await self._last()
                    self._tasks.cancel_scope.cancel()
                if failure is not None:
                    raise failure
        except (Error, OSError) as error:
            if not started:
                raise
            self.finish("lost", TERMINATED_CODE, str(error))
        finally:
            engine.planner.release(self.id)
            self.finish("terminated", TERMINATED_CODE, "the engine stopped")
            self._container = None
            self.gone.set()
            engine.logs.end(self.label, self.id)
            engine.events.publish("sandbox.stopped", self.label, sandbox=self.id)

    def _container_spec(self, volumes: tuple[Mount, ...]) -> ContainerSpec:
        spec = self.spec
        return ContainerSpec(
            id=self.id,
            label=self.label,
            image=self._image,
            resources=spec.resources,
            mounts=volumes,
            block_network=spec.block_network,
            private_network=not spec.block_network,
            runtime=spec.runtime,
            command=inner_tool.keeper(self._image.python),
            workdir=spec.main.workdir,
        )

    def _accept(self) -> asyncio.Protocol:
        self._kept.set()
        return _Silent()

    async def _open(self, container: Container) -> None:
        self._tasks.start_soon(self._watch, container)
        with anyio.move_on_after(START_WITHIN):
            await self._kept.wait()
        if not self._kept.is_set() or self.end is not None:
            raise LaunchError(f"sandbox {self.label} did not start: {self.explain()}")
        for port in self.spec.ports:
            self.ports[port] = await self._tasks.start(serve, container, port, self._traffic)
        if self.spec.main.command:
            main = await self.start(self.spec.main, MAIN)
            self._tasks.start_soon(self._follow, main)
        if self.spec.idle_timeout is not None:
            self.touch()  # its start is no idle time
            self._tasks.start_soon(self._end_when_idle, self.spec.idle_timeout)
        self._engine.events.publish("sandbox.started", self.label, sandbox=self.id)

    async def _last(self) -> None:
        with anyio.move_on_after(self.spec.timeout) as life:
            await self.ended.wait()
            if self.end is not None and self.end.state == "exited":
                await self._drain(self.processes[MAIN])
        if life.cancelled_caught:
            words = f"it has lived for {self.spec.timeout:g} s, its timeout"
            self.finish("timeout", TIMEOUT_CODE, words)

    async def _drain(self, main: SandboxProcess) -> None:
        """Output of the command that is not read yet stays readable when the container is gone, so
        wait for it; but not for a process that the command left behind with the pipe open."""
        while True:
            with anyio.move_on_after(LINGER):
                await main.drained.wait()
            if (
                self._hurry
                or main.drained.is_set()
                or not any(out.full for out in main.outputs.values())
            ):
                return

    def let_go(self) -> None:
        """End what still waits for readers."""
        self._hurry = True

    def finish(self, state: str, code: int, words: str) -> None:
        """Decide how it ends, once."""
        if self.end is None:
            self.end = End(state, code, words)
            self.ended.set()
            self._kept.set()

    async def _watch(self, container: Container) -> None:
        reason = await container.wait()
        self.finish("lost", TERMINATED_CODE, f"its container ended: {reason}")

    async def _follow(self, main: SandboxProcess) -> None:
        await main.ended.wait()
        assert main.returncode is not None
        self.finish("exited", main.returncode, "its command has ended")

    async def _end_when_idle(self, idle: float) -> None:
        while True:
            now = self._engine.loop.time()
            busy = self._traffic.open or any(
                process.returncode is None
                for process in self.processes.values()
                if process.id != MAIN
            )
            if busy:
                self._used_at = now
            if now - self._used_at >= idle:
                self.finish("terminated", TERMINATED_CODE, f"nobody used it for {idle:g} s")
                return
            await anyio.sleep(self._used_at + idle - now)

    # --- processes ---------------------------------------------------------------------------------

    async def start(self, spec: ProcessSpec, process_id: str | None = None) -> SandboxProcess:
        """Start a process. Raises SandboxTerminatedError once the sandbox has ended."""
        container = self.alive()
        running = sum(each.returncode is None for each in self.processes.values())
        if running >= MAX_PROCESSES:
            raise ResourceExhaustedError(f"{MAX_PROCESSES} processes run in sandbox {self.id}")
        env = await self._environment(spec)
        command = self._command(spec)
        process = SandboxProcess(
            process_id or new_id("ex"),
            self._sink(spec.stdout, "stdout"),
            self._sink(spec.stderr, "stderr"),
        )
        self._forget_old()
        self.processes[process.id] = process

        async def begin() -> Process:
            return await container.exec(command, env=env, workdir=spec.workdir)

        try:
            await self._tasks.start(process.run, begin, spec.timeout)
        except BaseException:
            del self.processes[process.id]
            raise
        self.touch()
        return process

    def alive(self) -> Container:
        if self.end is not None or self._container is None:
            raise SandboxTerminatedError(f"sandbox {self.id} has ended: {self.explain()}")
        return self._container

    def explain(self) -> str:
        return self.end.words if self.end else "it runs"

    def touch(self) -> None:
        self._used_at = self._engine.loop.time()

    async def _environment(self, spec: ProcessSpec) -> dict[str, str]:
        """The sandbox's variables are the main command's; each process may add its own.

        They reach the process alone: no container, image or layer carries them.
        """
        main = self.spec.main
        secrets = (*main.secrets, *(spec.secrets if spec is not main else ()))
        values = await self._engine.objects.secrets.resolve(secrets)
        if values:
            self._hidden |= set(values.values())
            self._engine.logs.hide(self.id, Mask(self._hidden))
        env = {**values, **dict(main.env), **dict(spec.env)}
        if spec.terminal is not None:
            env.setdefault("TERM", "xterm-256color")
        return env | {"MINIMODAL_SANDBOX_ID": self.id, "MODAL_SANDBOX_ID": self.id}

    def _command(self, spec: ProcessSpec) -> tuple[str, ...]:
        python = self._image.python
        if spec.tool:
            return inner_tool.command(python, "files", **json.loads(spec.tool))
        command = spec.command
        if spec is self.spec.main:
            command = (*self._image.entrypoint, *command)
        if spec.terminal is None:
            return command
        size = spec.terminal
        return inner_tool.command(
            python, "pty", command=command, rows=size.rows, columns=size.columns
        )

    def _sink(self, kind: str, stream: str) -> Sink | None:
        if kind == "pipe":
            return None
        if kind == "null":
            return lambda data: None

        def log(data: bytes) -> None:
            text = data.decode("utf-8", "backslashreplace")
            self._engine.logs.add(self.label, self.id, "", stream, text)

        return log

    def _forget_old(self) -> None:
        ended = [each for each in self.processes.values() if each.returncode is not None]
        for process in ended[: max(0, len(ended) - KEPT_PROCESSES + 1)]:
            process.forget()
            del self.processes[process.id]

    async def snapshot(self) -> ImageSpec:
        """Its files as an image that others can start from. Raises ConflictError, BuildError."""
        container, image = self.alive(), self.spec.image
        layers = (*image.layers, Snapshot(new_id("im")))
        kept = ImageSpec(layers, image.mounts, None, image.recipe)
        self.touch()
        await container.snapshot(kept)
        return kept


class _Silent(asyncio.Protocol):
    """The keeper's end of the container's socket. Nothing in a sandbox has anything to say to us."""

    def connection_made(self, transport: Any) -> None:
        transport.pause_reading()
