"""One build container: commands run in it one by one, then its files become an image.

It dies with this process: it reads its stdin, which ends when we do, and removes itself. Commands
are `exec`s, whose environment (indexes, proxies, secrets) is in no layer, image or history.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import anyio

from minimodal.backends.docker_api import DockerApi, DockerFailure, Stream
from minimodal.backends.docker_network import OWN
from minimodal.backends.docker_spec import NAME, STDIN_UNTIL_DEATH, Owner
from minimodal.protocols import Report
from minimodal.types import new_id

from .build import StepFailed
from .docker_commands import Run
from .running import STEP_TIMEOUT, Lines

HOLD = ["cat"]
NO_LOG = {"Type": "none", "Config": {}}


class BuildContainer:
    """A container over the parent's files. Made by `open_build_container`."""

    def __init__(self, api: DockerApi, container: str, parent: Mapping[str, Any]) -> None:
        self._api = api
        self._container = container
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
                    self._container, command, env={**env, **step.env}, workdir="/", user="0"
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
        await self._api.put_archive(self._container, "/", tar)

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
        await self._api.commit(self._container, repository, words, config)


@contextlib.asynccontextmanager
async def open_build_container(
    api: DockerApi, owner: Owner, image: str, *, mounts: Sequence[Mapping[str, Any]], network: str
) -> AsyncIterator[BuildContainer]:
    """A running container of `image`, gone after the block."""
    request = {
        "Image": image,
        "Entrypoint": HOLD,
        "Cmd": [],
        "User": "0",
        **STDIN_UNTIL_DEATH,
        "Labels": owner.labels(),
        "HostConfig": {
            "NetworkMode": network,
            "Mounts": list(mounts),
            "LogConfig": NO_LOG,
            "AutoRemove": True,
        },
    }
    async with _made(api, owner, image, request) as made:
        async with api.attach(made._container, stdin=True):
            try:
                await api.start(made._container)
            except DockerFailure as error:
                raise StepFailed(_not_started(image, error)) from error
            yield made


@contextlib.asynccontextmanager
async def open_stopped_container(
    api: DockerApi, owner: Owner, image: str
) -> AsyncIterator[BuildContainer]:
    """A container that never runs: enough to put files in."""
    request = {
        "Image": image,
        "Entrypoint": HOLD,
        "Cmd": [],
        "Labels": owner.labels(),
        "HostConfig": {"NetworkMode": OWN, "LogConfig": NO_LOG},
    }
    async with _made(api, owner, image, request) as made:
        yield made


@contextlib.asynccontextmanager
async def _made(
    api: DockerApi, owner: Owner, image: str, request: Mapping[str, Any]
) -> AsyncIterator[BuildContainer]:
    parent = await api.image(image)
    if parent is None:
        raise StepFailed(f"the image {image} below this step is gone; build again")
    name = f"{NAME}{owner.engine}-{new_id('build')}"
    try:
        yield BuildContainer(api, await api.create(name, request), parent)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(15):
            with contextlib.suppress(DockerFailure):
                await api.remove(name, within=10)


async def _feed(output: Stream, lines: Lines) -> None:
    while (message := await output.read()) is not None:
        lines.feed(message[1])


def _not_started(image: str, error: DockerFailure) -> str:
    words = str(error)
    if "executable file not found" in words or "no such file" in words:
        return f"{image} has no {shlex.join(HOLD)} command: minimodal cannot build on it"
    return f"a build container of {image} did not start: {words}"
