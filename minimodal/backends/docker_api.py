"""One Docker engine's API: each request with a deadline, each failure as a `DockerFailure`.

Knows HTTP's status codes and nothing of minimodal's specs. What is safe to repeat is repeated;
`create` is, because names are unique: a name conflict means that our first try worked.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Mapping
from typing import IO, Any

import anyio
import anyio.lowlevel

from .docker_requests import ANSWER_WITHIN, RETRY_DELAYS, DockerFailure, Requests, tolerating

START_WITHIN = 60.0  # create and start: the engine works, possibly on a loaded machine
CHUNK = 256 << 10  # bytes of an upload
USUAL_PACE = 5.0  # a create takes 10 ms, on a loaded machine 200


class DockerApi:
    """What the backend and the builder ask of an engine. Made by docker_connect.`open_api`."""

    def __init__(self, client: Any, requests: Requests) -> None:
        self.host = requests.host
        self.info: dict[str, Any] = {}  # `docker info`, read once when connecting
        self.unanswered: set[str] = set()  # names of containers that may yet appear
        self._client = client
        self._requests = requests

    # --- containers ---

    async def create(self, name: str, config: Mapping[str, Any]) -> str:
        """Create a container of a unique name and return its id; a repeated create finds the first.

        Not cut short by a cancellation while the engine answers at its usual pace: the container
        would appear after we had stopped looking for it. A slower one's stays among `unanswered`.
        """

        async def request() -> str:
            try:
                made = await self._client.containers.create(dict(config), name=name)
            except self._requests.foreign as error:
                if getattr(error, "status", None) != 409:
                    raise
                made = await self._the_one_named(name)
            return str(made.id)

        deadline = anyio.current_time() + START_WITHIN
        while True:
            await anyio.lowlevel.checkpoint()
            try:
                self.unanswered.add(name)
                with anyio.CancelScope(shield=True):
                    made = await self._requests.ask(
                        f"create {name}", request, within=USUAL_PACE, again=True
                    )
                self.unanswered.discard(name)
                return made
            except DockerFailure as error:
                if error.status != 0:
                    self.unanswered.discard(name)
                too_slow = isinstance(error.__cause__, TimeoutError)
                if not too_slow or anyio.current_time() > deadline:
                    raise

    async def _the_one_named(self, name: str) -> Any:
        """A container that an earlier try is making: its name is taken before it can be found."""
        for delay in RETRY_DELAYS:
            try:
                return await self._client.containers.get(name)
            except self._requests.foreign as error:
                if getattr(error, "status", None) != 404:
                    raise
            await anyio.sleep(delay)
        return await self._client.containers.get(name)

    async def start(self, container: str) -> None:
        """Start it. Repeating is harmless: a started one answers 304."""
        handle = self._client.containers.container(container)
        await self._requests.ask("start a container", handle.start, within=START_WITHIN, again=True)

    async def wait_stopped(self, container: str) -> None:
        """Wait until it does not run; the engine may go away and come back in the meantime."""
        handle = self._client.containers.container(container)
        delay = 0.1
        while True:
            try:
                await self._requests.ask("wait for a container", handle.wait, within=None)
                return
            except DockerFailure as error:
                if error.status == 404:
                    return
            await anyio.sleep(delay)
            delay = min(2 * delay, 2.0)

    async def inspect(self, container: str, *, within: float = ANSWER_WITHIN) -> dict[str, Any]:
        handle = self._client.containers.container(container)
        found: dict[str, Any] = await self._requests.ask(
            "inspect", handle.show, within=within, again=True
        )
        return found

    async def kill(self, container: str) -> None:
        """SIGKILL it; one that is gone or stopped is fine."""
        handle = self._client.containers.container(container)
        with tolerating(404, 409):
            await self._requests.ask("kill a container", handle.kill, again=True)

    async def remove(self, container: str, *, within: float = ANSWER_WITHIN) -> bool:
        """Remove it by id or name, running or not. False: there was none."""
        handle = self._client.containers.container(container)
        try:
            await self._requests.ask(
                "remove a container",
                lambda: handle.delete(force=True, v=True),
                within=within,
                again=True,
            )
        except DockerFailure as error:
            if error.status == 409:  # being removed already, by the engine or by somebody else
                return True
            if error.status != 404:
                raise
            return False
        return True

    async def list_containers(self, *labels: str) -> list[dict[str, Any]]:
        """All containers, running or not, that carry each of the labels (`key` or `key=value`)."""
        filters = json.dumps({"label": list(labels)})
        found = await self._requests.ask(
            "list containers",
            lambda: self._client.containers.list(all=True, filters=filters),
            again=True,
        )
        return [dict(one._container) for one in found]

    @contextlib.asynccontextmanager
    async def attach(self, container: str, *, stdin: bool = False) -> AsyncIterator[Any]:
        """Its output as (1 or 2, bytes) messages: call `read` of the result until None.

        With `stdin`, a container made with StdinOnce sees end-of-file when we leave or die.
        """
        handle = self._client.containers.container(container)
        async with self._requests.streaming(
            handle.attach(stdin=stdin, stdout=True, stderr=True)
        ) as stream:
            yield stream

    async def put_archive(self, container: str, path: str, tar: bytes | IO[bytes]) -> None:
        """Unpack a tar archive (an open file, or bytes) into a container, started or not."""
        handle = self._client.containers.container(container)
        file = io.BytesIO(tar) if isinstance(tar, bytes) else tar

        async def chunks() -> AsyncIterator[bytes]:
            # aiohttp would close a file that it is given, in a thread, at the moment that we do.
            file.seek(0)
            while chunk := file.read(CHUNK):
                yield chunk

        await self._requests.ask(
            "copy files", lambda: handle.put_archive(path, chunks()), within=None
        )

    async def commit(
        self, container: str, repository: str, message: str, config: Mapping[str, Any]
    ) -> str:
        """Make an image of a container's files and tag it `repository:latest`, at once or not at all."""
        handle = self._client.containers.container(container)
        made = await self._requests.ask(
            "commit an image",
            lambda: handle.commit(
                repository=repository, tag="latest", message=message, config=dict(config)
            ),
            within=None,
        )
        return str(made["Id"])

    # --- processes inside containers ---

    @contextlib.asynccontextmanager
    async def exec(
        self,
        container: str,
        command: tuple[str, ...],
        *,
        env: Mapping[str, str],
        workdir: str | None = None,
        user: str = "",
        stdin: bool = False,
    ) -> AsyncIterator[tuple[str, Any]]:
        """Start a process: (exec id, stream with `read`, `write`, `write_eof`).

        The environment of an exec is in no image, layer or history, unlike a container's.
        """
        handle = self._client.containers.container(container)
        made = await self._requests.ask(
            "prepare a process",
            lambda: handle.exec(
                list(command), stdin=stdin, user=user, environment=dict(env), workdir=workdir
            ),
        )
        async with self._requests.streaming(made.start()) as stream:
            yield str(made.id), stream

    async def exec_state(self, exec_id: str) -> dict[str, Any]:
        handle = self._client.containers.exec(exec_id)
        found: dict[str, Any] = await self._requests.ask(
            "inspect a process", handle.inspect, again=True
        )
        return found

    # --- images ---

    async def image(self, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image, or None."""
        try:
            found: dict[str, Any] = await self._requests.ask(
                f"look up {name}", lambda: self._client.images.inspect(name), again=True
            )
        except DockerFailure as error:
            if error.status == 404:
                return None
            raise
        return found

    async def list_images(self) -> list[dict[str, Any]]:
        """All images of the engine, those without a tag too."""
        found: list[dict[str, Any]] = await self._requests.ask(
            "list images", lambda: self._client.images.list(all=1), again=True
        )
        return found

    async def tag(self, image: str, repository: str) -> None:
        await self._requests.ask(
            "tag an image", lambda: self._client.images.tag(image, repository, tag="latest")
        )

    async def remove_image(self, name: str, *, force: bool = False) -> None:
        """Remove a tag, and the image with its last one. `force`: also while containers use it."""
        with tolerating(404):
            await self._requests.ask(
                "remove an image", lambda: self._client.images.delete(name, force=force)
            )

    async def pull(self, tag: str, auth: Mapping[str, str] | None) -> AsyncIterator[dict[str, Any]]:
        """Pull an image; yields the engine's progress records."""
        records = self._client.images.pull(tag, auth=dict(auth) if auth else None, stream=True)
        async for record in self._requests.records(f"pull {tag}", records):
            yield record

    async def build(
        self, context: Any, *, dockerfile: str, tag: str, args: Mapping[str, str]
    ) -> AsyncIterator[dict[str, Any]]:
        """Run the classic builder over an open tar file; yields the engine's progress records."""
        records = self._client.images.build(
            fileobj=context,
            encoding="identity",
            path_dockerfile=dockerfile,
            tag=tag,
            buildargs=dict(args),
            rm=True,
            forcerm=True,
            stream=True,
        )
        async for record in self._requests.records("build", records):
            yield record
