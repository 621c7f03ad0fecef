"""One running container: its end, its reason, the tail of its output, processes inside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import anyio
from anyio.abc import ByteStream, TaskGroup, TaskStatus

from minimodal.errors import ProtocolError
from minimodal.layers import ImageSpec
from minimodal.types import ContainerSpec, ExitReason

from . import inner_tool
from .docker_api import DockerApi
from .docker_process import DockerProcess, open_process
from .docker_relay import Relay
from .docker_requests import DockerFailure, Stream

log = logging.getLogger(__name__)

TAIL_BYTES = 8 << 10
OUTPUT_GRACE = 1.0  # the last output arrives after the news of the end


class DockerContainer:
    """A `Container`. `run` is its one task; the backend removes it."""

    def __init__(
        self,
        api: DockerApi,
        spec: ContainerSpec,
        docker_id: str,
        tasks: TaskGroup,
        *,
        relay_to: Path | None = None,
        local: bool = True,
    ) -> None:
        """`relay_to`: our socket, where its agent talks over its stdin and stdout."""
        self.spec = spec
        self.docker_id = docker_id
        self._api = api
        self._tasks = tasks
        self._relay_to = relay_to
        self._local = local
        self._ended = anyio.Event()
        self._address: str | None = None
        self._reason = ExitReason(detail="it was removed")
        self._tails = {1: bytearray(), 2: bytearray()}  # stdout, stderr: their order is not known
        self._scope = anyio.CancelScope()

    def __repr__(self) -> str:
        return f"<DockerContainer {self.id} {'ended' if self._ended.is_set() else 'running'}>"

    @property
    def id(self) -> str:
        return self.spec.id

    async def wait(self) -> ExitReason:
        """Wait for its end. While the Docker engine is away nobody knows: bound this wait."""
        await self._ended.wait()
        return self._reason

    async def kill(self) -> None:
        """Where the engine refuses or is away, the removal that follows, which is repeated, ends it."""
        try:
            await self._api.kill(self.docker_id)
        except DockerFailure as error:
            log.info("container %s was not killed: %s", self.id, error)

    def oom_kills(self) -> int:
        """Its agent sees the counter itself, and says so with each process that ends."""
        return 0

    async def exec(
        self, command: tuple[str, ...], *, env: Mapping[str, str], workdir: str | None
    ) -> DockerProcess:
        return await open_process(
            self._api, self.docker_id, self._tasks, command, env=env, workdir=workdir
        )

    async def dial(self, port: int) -> ByteStream:
        """Straight to its own address where it has one and the server listens there; else a process
        inside connects, which reaches loopback too and needs no network."""
        address = await self._own_address() if self._local else ""
        if address:
            with suppress(OSError, TimeoutError), anyio.fail_after(1):
                return await anyio.connect_tcp(address, port)
        return await inner_tool.relayed(self, self.spec.image.python, port)

    async def _own_address(self) -> str:
        if self._address is None:
            with suppress(DockerFailure):
                networks = (await self._api.inspect(self.docker_id))["NetworkSettings"]
                self._address = str(networks.get("IPAddress") or "")
        return self._address or ""

    async def snapshot(self, image: ImageSpec) -> None:
        """The image's own words about command and user stay: the keeper's must not show."""
        said = ((await self._api.image(self.spec.image.name)) or {}).get("Config") or {}
        config = {
            "Entrypoint": said.get("Entrypoint") or [],
            "Cmd": said.get("Cmd") or ["/bin/sh"],
            "User": said.get("User") or "0",
            "WorkingDir": said.get("WorkingDir") or "/",
            "Labels": {"minimodal.engine": "", "minimodal.home": "", "minimodal.step": "snapshot"},
        }
        await self._api.commit(self.docker_id, f"minimodal/{image.digest}", "snapshot", config)

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Start it, and stay until it has ended or `forget` is called. Raises before started only."""
        with self._scope:
            stdin = self._relay_to is not None
            async with self._api.attach(self.docker_id, stdin=stdin) as output:
                await self._api.start(self.docker_id)
                task_status.started()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._follow, output, tasks)
                    await self._api.wait_stopped(self.docker_id)
                    with anyio.move_on_after(OUTPUT_GRACE):
                        self._reason = await self._find_reason()
                    tasks.cancel_scope.deadline = anyio.current_time() + OUTPUT_GRACE
            self._add_detail()
        self._ended.set()

    def forget(self) -> None:
        """The container was removed: end `run`, and whoever waits."""
        self._scope.cancel()

    async def _follow(self, output: Stream, tasks: TaskGroup) -> None:
        """Read all output, or the container would block on a full pipe; keep the end of it."""
        relay = Relay(output, self._relay_to, tasks) if self._relay_to else None
        while (message := await output.read()) is not None:
            if relay is not None and message[0] == 1:
                try:
                    await relay.feed(message[1])
                except (ProtocolError, OSError) as error:  # it is a container's, so nobody else's
                    log.warning("container %s is cut off: %s", self.id, error)
                    with suppress(DockerFailure):
                        await self._api.kill(self.docker_id)
                    relay = None
                continue
            tail = self._tails.setdefault(message[0], bytearray())
            tail += message[1][-TAIL_BYTES:]
            del tail[:-TAIL_BYTES]
        if relay is not None:
            await relay.aclose()

    async def _find_reason(self) -> ExitReason:
        try:
            state = (await self._api.inspect(self.docker_id))["State"]
        except DockerFailure as error:
            return ExitReason(detail="it was removed" if error.status == 404 else str(error))
        return exit_reason(state)

    def _add_detail(self) -> None:
        tail = self._tails[2] or self._tails[1]
        text = tail.decode(errors="backslashreplace").strip()
        if text and not self._reason.detail:
            reason = self._reason
            self._reason = ExitReason(reason.code, reason.signal, reason.oom, text)


def exit_reason(state: Mapping[str, object]) -> ExitReason:
    """Docker's `State` in our words. An init passes a signal on as 128 + its number.

    `OOMKilled` alone is not the reason: it also stays true when a child was killed and the container
    then ended cleanly.
    """
    code = state.get("ExitCode")
    detail = str(state.get("Error") or "")
    if not isinstance(code, int):
        return ExitReason(detail=detail)
    if code == 137 and state.get("OOMKilled"):
        return ExitReason(signal=9, oom=True, detail=detail)
    if 128 < code < 128 + 65:
        return ExitReason(signal=code - 128, detail=detail)
    return ExitReason(code=code, detail=detail)
