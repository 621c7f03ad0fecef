"""One build container: commands run in it one by one, then its files become an image.

It dies with this process: it reads its stdin, which ends when we do, and removes itself. Commands
are `exec`s, whose environment (indexes, proxies, secrets) is in no layer, image or history.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import anyio

from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_network import OWN
from minimodal.backends.docker_removal import Removal
from minimodal.backends.docker_requests import DockerFailure, Stream
from minimodal.backends.docker_spec import NAME, STDIN_UNTIL_DEATH, Owner
from minimodal.protocols import Report
from minimodal.types import new_id

from .build import StepFailed
from .docker_commands import Run
from .running import STEP_TIMEOUT, Lines

HOLD = ["cat"]


class BuildContainer:
    """A container over the parent's files. Made by `BuildContainers`."""

    def __init__(self, api: DockerApi, container: str, parent: Mapping[str, Any]) -> None:
        self.id = container
        self._api = api
        self._parent = parent

    async def run(
        self,
        step: Run,
        env: Mapping[str, str],
        report: Report,
        *,
        hidden: Iterable[str] = (),
        timeout: float = STEP_TIMEOUT,
    ) -> None:
        """Run a command to its end. Raises StepFailed if that is not exit code 0."""
        lines = Lines(report, hidden)
        command = tuple(step.argv)
        try:
            with anyio.fail_after(timeout):
                async with self._api.exec(
                    self.id, command, env={**env, **step.env}, workdir="/", user="0"
                ) as (exec_id, output):
                    await _feed(output, lines)
                    code = (await self._api.exec_state(exec_id))["ExitCode"]
        except TimeoutError:
            lines.close()
            what = f"{step.shown}: still running after {timeout:.0f} s"
            raise StepFailed(what, None, lines.tail) from None
        lines.close()
        if code != 0:
            raise StepFailed(step.shown, code, lines.tail)

    async def put(self, tar: Any) -> None:
        """Unpack an open tar file at the root."""
        await self._api.put_archive(self.id, "/", tar)

    async def commit(self, repository: str, words: str) -> None:
        """What the parent said about entry point, command and user stays; ours must not show."""
        said = self._parent.get("Config") or {}
        config = {
            "Entrypoint": said.get("Entrypoint") or [],
            "Cmd": said.get("Cmd") or ["/bin/sh"],
            "User": said.get("User") or "0",
            "WorkingDir": said.get("WorkingDir") or "/",
            "Labels": {"minimodal.engine": "", "minimodal.home": "", "minimodal.step": words},
        }
        await self._api.commit(self.id, repository, words, config)


class BuildContainers:
    """Opens build containers of one engine. `network` names the one to use at the time."""

    def __init__(
        self, api: DockerApi, owner: Owner, removal: Removal, network: Callable[[], Awaitable[str]]
    ) -> None:
        self._api = api
        self._owner = owner
        self.engine = owner.engine
        self._removal = removal
        self._network = network

    @contextlib.asynccontextmanager
    async def running(
        self, image: str, mounts: Sequence[Mapping[str, Any]], *, host_network: bool
    ) -> AsyncIterator[BuildContainer]:
        """A container of `image` that runs, as root, and is gone after the block."""
        async with contextlib.AsyncExitStack() as stack:
            shared = "host" if host_network else await self._network()
            for network in dict.fromkeys((shared, OWN)):
                request = {**self._request(image, network, mounts), **STDIN_UNTIL_DEATH}
                try:
                    made = await stack.enter_async_context(self._made(image, request))
                    await stack.enter_async_context(self._api.attach(made.id, stdin=True))
                    await self._api.start(made.id)
                except DockerFailure as error:
                    if not network.startswith("container:"):
                        raise StepFailed(_not_started(image, error)) from error
                else:
                    break
            yield made

    @contextlib.asynccontextmanager
    async def stopped(self, image: str) -> AsyncIterator[BuildContainer]:
        """A container that never runs: enough to put files in."""
        async with self._made(image, self._request(image, OWN, ())) as made:
            yield made

    def _request(
        self, image: str, network: str, mounts: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        return {
            "Image": image,
            "Entrypoint": HOLD,
            "Cmd": [],
            "User": "0",
            "Labels": self._owner.labels(),
            "HostConfig": {
                "NetworkMode": network,
                "Mounts": list(mounts),
                "LogConfig": {"Type": "none", "Config": {}},
                "AutoRemove": True,
            },
        }

    @contextlib.asynccontextmanager
    async def _made(self, image: str, request: Mapping[str, Any]) -> AsyncIterator[BuildContainer]:
        parent = await self._api.image(image)
        if parent is None:
            raise StepFailed(f"the image {image} below this step is gone; build again")
        name = f"{NAME}{self._owner.engine}-{new_id('build')}"
        try:
            container = await self._api.create(name, request)
        except BaseException:
            await self._removal.remove(name)
            raise
        try:
            yield BuildContainer(self._api, container, parent)
        finally:
            self._removal.remove_soon(container)


async def _feed(output: Stream, lines: Lines) -> None:
    while (message := await output.read()) is not None:
        lines.feed(message[1])


def _not_started(image: str, error: DockerFailure) -> str:
    words = str(error)
    if "executable file not found" in words or "no such file" in words:
        return f"{image} has no {shlex.join(HOLD)} command: minimodal cannot build on it"
    return f"a build container of {image} did not start: {words}"
