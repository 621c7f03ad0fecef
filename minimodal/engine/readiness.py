"""Whether a sandbox is ready: its probe, asked while somebody waits for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from minimodal.errors import Error
from minimodal.sandbox_spec import Probe, ProcessSpec

if TYPE_CHECKING:
    from .sandbox_run import SandboxRun

LEAST_INTERVAL = 0.001  # seconds: what a container asks for is not believed


async def wait_ready(run: SandboxRun, probe: Probe) -> None:
    """Ask until it is ready. Raises SandboxTerminatedError where it ends before."""
    while not await _succeeds(run, probe):
        with anyio.move_on_after(max(LEAST_INTERVAL, probe.interval)):
            await run.ended.wait()


async def _succeeds(run: SandboxRun, probe: Probe) -> bool:
    container = run.alive()
    if probe.port is not None:
        try:
            stream = await container.dial(probe.port)
        except (OSError, Error):  # nobody listens there yet
            return False
        await stream.aclose()
        return True
    process = await run.start(ProcessSpec(probe.command, stdout="null", stderr="null"))
    try:
        await process.ended.wait()
    finally:
        if process.returncode is None:  # nobody waits any more
            with anyio.CancelScope(shield=True), anyio.move_on_after(5):
                await process.kill()
    return process.returncode == 0
