"""Opens a real backend and runs code in its containers; no agent, no engine."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio

from minimodal.backends.choose import open_best
from minimodal.home import Home, open_home
from minimodal.layers import Base, ImageSpec
from minimodal.protocols import Backend, Container
from minimodal.types import ContainerSpec, ExitReason, ImageRef, new_id

START_SECONDS = 30


@dataclass(frozen=True)
class Engine:
    """What the backends read of the settings."""

    engine_id: str
    docker_host: str | None = None
    runtime: str | None = None


@dataclass
class Rig:
    home: Home
    backend: Backend
    image: ImageRef
    engine_id: str

    def spec(self, **changes: Any) -> ContainerSpec:
        return replace(ContainerSpec(new_id("ct"), "f", self.image), **changes)

    def python(self, code: str, **changes: Any) -> ContainerSpec:
        """A container whose one process is this code."""
        command = (self.image.python, "-c", textwrap.dedent(code))
        return self.spec(command=command, **changes)

    @asynccontextmanager
    async def launch(self, spec: ContainerSpec) -> AsyncIterator[Container]:
        async with self.backend.launch(spec, lambda: _refuse()) as container:
            yield container

    async def end_of(self, spec: ContainerSpec) -> ExitReason:
        with anyio.fail_after(START_SECONDS):
            async with self.launch(spec) as container:
                return await container.wait()

    async def value_of(self, code: str, **changes: Any) -> Any:
        """What the code printed last, as JSON."""
        reason = await self.end_of(self.python(code, **changes))
        assert reason.code == 0, f"{reason}: {reason.detail}"
        return json.loads(reason.detail.splitlines()[-1])


def _refuse() -> Any:
    raise AssertionError("no agent runs in these tests")


@asynccontextmanager
async def open_rig(
    name: str, *, python: str | None = None, home: Home | None = None
) -> AsyncIterator[Rig]:
    home = home or open_home()
    engine_id = new_id("en")
    async with open_best(name, home, Engine(engine_id)) as choice:
        minor = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        base = Base(f"python:{minor}-slim", minor)
        image = await choice.backend.build(ImageSpec((base,)), print)
        yield Rig(home, choice.backend, image, engine_id)


def run(test: Callable[[], Awaitable[None]], *, uvloop: bool = True) -> None:
    anyio.run(test, backend_options={"use_uvloop": uvloop})


async def output_of(
    container: Container, *command: str, env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    process = await container.exec(command, env=env or {}, workdir=None)
    out, err = [], []

    async def collect(stream: Any, into: list[str]) -> None:
        into.extend([part.decode() async for part in stream])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(collect, process.stdout, out)
        tasks.start_soon(collect, process.stderr, err)
    return await process.wait(), "".join(out), "".join(err)
