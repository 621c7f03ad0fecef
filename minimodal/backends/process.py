"""The `process` backend: plain subprocesses, for systems without namespaces. No isolation."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from minimodal.home import Home
from minimodal.layers import ImageSpec
from minimodal.protocols import Process, ProtocolFactory, Report
from minimodal.types import Capabilities, ContainerSpec, ExitReason, ImageRef

from .bundle import bundle


class ProcessContainer:
    def __init__(self, container_id: str, process: asyncio.subprocess.Process) -> None:
        self.id = container_id
        self._process = process

    async def wait(self) -> ExitReason:
        code = await self._process.wait()
        return ExitReason(signal=-code) if code < 0 else ExitReason(code)

    async def kill(self) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)

    async def exec(
        self, command: tuple[str, ...], *, env: Mapping[str, str], workdir: str | None
    ) -> Process:
        raise NotImplementedError


class ProcessBackend:
    name = "process"

    def __init__(self, home: Home) -> None:
        self._home = home
        self._bundle = bundle(home)

    def describe(self) -> Capabilities:
        return Capabilities("process", "none", "none", "none", "none", "none", "none")

    async def build(self, image: ImageSpec, report: Report) -> ImageRef:
        return ImageRef(image.digest, image.digest, sys.executable)

    @asynccontextmanager
    async def launch(
        self, spec: ContainerSpec, connect: ProtocolFactory
    ) -> AsyncIterator[ProcessContainer]:
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory(prefix="mm-") as directory:
            path = os.path.join(directory, "engine.sock")
            server = await loop.create_unix_server(connect, path)
            agent = Path(self._bundle) / "minimodal" / "agent" / "main.py"
            sources = [m.name for m in spec.mounts if m.kind == "sources"]
            env = {**os.environ, **spec.env}
            if sources:
                env["MINIMODAL_SOURCES_DIR"] = str(self._home.sources / sources[0])
            process = await asyncio.create_subprocess_exec(
                spec.image.python,
                "-u",
                str(agent),
                path,
                env=env,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
            container = ProcessContainer(spec.id, process)
            try:
                yield container
            finally:
                server.close()
                with anyio.CancelScope(shield=True):
                    await container.kill()
                    await process.wait()


@asynccontextmanager
async def open_backend(home: Home, config: Any) -> AsyncIterator[ProcessBackend]:
    yield ProcessBackend(home)
