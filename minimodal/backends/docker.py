"""The Docker backend: hardened containers, each with a socket directory of its own.

Owns the connection to the engine, the containers that this process started and their removal, and
the search for containers of dead engines. Isolation is what `describe` says, no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from anyio.abc import TaskGroup

from minimodal.engine_lock import hold_engine_lock, is_alive
from minimodal.home import Home
from minimodal.images.build import Objects
from minimodal.images.docker_builder import DockerBuilder
from minimodal.images.docker_step import BuildContainers
from minimodal.layers import ImageSpec
from minimodal.protocols import ProtocolFactory, Report
from minimodal.types import Capabilities, ContainerSpec, ImageRef, new_id

from .bundle import SOCKET_DIRECTORY, agent_command
from .docker_api import DockerApi
from .docker_bytecode import ImageBytecode
from .docker_connect import open_first
from .docker_container import DockerContainer
from .docker_errors import launch_error
from .docker_info import capabilities, check_runtime, container_user, has_gpu, is_local
from .docker_network import ISOLATED, OWN, SharedNetwork
from .docker_relay import copies, relay_command
from .docker_removal import REMOVE_WITHIN, Removal
from .docker_requests import DockerFailure
from .docker_spec import (
    DEFAULT_DIRECTORY,
    ENGINE_LABEL,
    HOME_LABEL,
    NAME,
    STDIN_UNTIL_DEATH,
    Bind,
    Owner,
    create_request,
)
from .mounts import resolve_mounts, spread
from .network_settings import network_settings
from .sockets import NAME as SOCKET_NAME
from .sockets import SocketDirectories, serve, sweep

log = logging.getLogger(__name__)


class Options(NamedTuple):
    """What of the settings concerns this backend; each may be missing in `config`."""

    host: str | None = None  # config.docker_host
    runtime: str | None = None  # config.runtime: for containers that name none
    engine: str | None = None  # config.engine_id: of an engine whose lock is held, see engine_lock
    objects: Objects = Objects()  # for build steps

    @classmethod
    def of(cls, config: Any) -> Options:
        return cls(
            getattr(config, "docker_host", None),
            getattr(config, "runtime", None),
            getattr(config, "engine_id", None),
            Objects.of(config),
        )


class DockerBackend:
    """A `Backend` on one Docker engine. Made by `open_backend`."""

    name = "docker"

    def __init__(
        self, api: DockerApi, home: Home, owner: Owner, tasks: TaskGroup, options: Options
    ) -> None:
        self._api = api
        self._home = home
        self._owner = owner
        self._tasks = tasks
        self._local = is_local(api.info)
        self._runtime = options.runtime
        self._user = container_user(api.info)
        self._removal = Removal(api, tasks)
        note = home.cache / "docker-network"
        self._network = SharedNetwork(api, self._removal, owner, self._user, note)
        containers = BuildContainers(api, owner, self._removal, self._network.mode)
        self._builder = DockerBuilder(
            api,
            home,
            containers,
            host_env=os.environ,
            objects=options.objects,
            local=self._local,
        )
        self._bytecode = ImageBytecode(api, home, containers, tasks)
        self._settings = network_settings(os.environ)
        self._sockets = SocketDirectories(home, owner.engine)

    def __repr__(self) -> str:
        return f"<DockerBackend {self._api.host}>"

    @property
    def file_owner(self) -> int | None:
        return int(self._user.partition(":")[0]) if self._local and os.geteuid() == 0 else None

    def describe(self) -> Capabilities:
        return capabilities(self._api.host, self._api.info, self._local)

    async def build(self, image: ImageSpec, report: Report) -> ImageRef:
        return await self._builder.build(image, report)

    @contextlib.asynccontextmanager
    async def launch(
        self, spec: ContainerSpec, connect: ProtocolFactory
    ) -> AsyncIterator[DockerContainer]:
        """See `Backend.launch`. The container shares a network namespace unless it must not."""
        spec = replace(spec, runtime=spec.runtime or self._runtime)
        self._builder.note_use(spec.image)
        with self._sockets.new() as directory:
            # Open to the container's user; the home's own 0700 keeps other users of the host out.
            directory.chmod(0o755)  # microseconds
            async with serve(directory, connect):
                container = await self._start(spec, directory)
                try:
                    yield container
                finally:
                    await self._removal.remove(container.docker_id)
                    container.forget()

    async def _start(self, spec: ContainerSpec, directory: Path) -> DockerContainer:
        binds = await anyio.to_thread.run_sync(self._binds, spec, directory)
        network = await self._network_for(spec)
        try:
            container = await self._start_in(spec, directory, binds, network)
        except DockerFailure as error:
            if not network.startswith("container:") or _is_about_image(error):
                raise launch_error(spec, error, self._api) from error
            self._network.distrust()
            try:
                container = await self._start_in(spec, directory, binds, OWN)
            except DockerFailure as again:
                raise launch_error(spec, again, self._api) from again
        return container

    async def _start_in(
        self, spec: ContainerSpec, directory: Path, binds: list[Bind], network: str
    ) -> DockerContainer:
        started = agent_command if self._local else relay_command
        request = create_request(
            spec,
            self._owner,
            command=spec.command or started(spec.image.python),
            env=self._environment(spec),
            binds=binds if self._local else (),
            user=self._user,
            network=network,
            gpu=has_gpu(self._api.info),
        )
        if not self._local:
            request |= STDIN_UNTIL_DEATH
        name = NAME + spec.id
        try:
            container = DockerContainer(
                self._api,
                spec,
                await self._api.create(name, request),
                self._tasks,
                relay_to=None if self._local else directory / SOCKET_NAME,
                local=self._local,
            )
            if not self._local:
                await self._copy(spec, container.docker_id, binds)
            await self._tasks.start(container.run)
        except BaseException:
            await self._removal.remove(name)
            raise
        return container

    async def _copy(self, spec: ContainerSpec, docker_id: str, binds: list[Bind]) -> None:
        """What would be mounted, where the engine cannot see it."""
        archive = await anyio.to_thread.run_sync(copies, spec, binds)
        await self._api.put_archive(docker_id, "/", archive)

    async def _network_for(self, spec: ContainerSpec) -> str:
        if spec.block_network:
            return ISOLATED
        if spec.private_network or spec.runtime:
            return OWN
        self._network.ensure(self._tasks, spec.image.name, spec.image.python)
        return await self._network.mode()

    def _environment(self, spec: ContainerSpec) -> dict[str, str]:
        ours = {"HOME": DEFAULT_DIRECTORY, "USER": "user", "LOGNAME": "user"}
        return {**ours, **self._settings.env, **dict(spec.image.env), **spec.env}

    def _binds(self, spec: ContainerSpec, directory: Path) -> list[Bind]:
        binds = list(self._settings.binds)
        if self._local:
            binds.insert(0, Bind(str(directory), SOCKET_DIRECTORY))
        if spec.command is None:
            ours = self._bytecode.packages(spec.image)
            binds += [Bind(str(path), target) for path, target in ours]
        for mount in spread(resolve_mounts(self._home, (*spec.image.mounts, *spec.mounts))):
            binds.append(Bind(str(mount.source), mount.target, mount.read_only))
        return binds

    def note_python(self, image: ImageRef, version: str) -> None:
        self._bytecode.note(image, version)

    def prepare(self) -> None:
        """What saves the first container time."""
        self._network.ensure_as_last_time(self._tasks)

    async def remove_orphans(self) -> None:
        """Remove the containers of this home whose engine is dead, and their sockets."""
        await anyio.to_thread.run_sync(sweep, self._home)
        try:
            for found in await self._api.list_containers(f"{HOME_LABEL}={self._owner.home}"):
                engine = found["Labels"].get(ENGINE_LABEL, "")
                if engine != self._owner.engine and _is_ours(found) and not self._lives(engine):
                    log.info("removing a container of the dead engine %s", engine)
                    await self._api.remove(found["Id"])
        except DockerFailure as error:
            log.warning("containers of dead engines were not looked for: %s", error)

    def _lives(self, engine: str) -> bool:
        return bool(engine) and is_alive(self._home, engine)

    async def remove_own(self) -> None:
        """At the end: whatever is still there, ghosts and replaced images included."""
        self._sockets.remove()
        with contextlib.suppress(DockerFailure):
            for found in await self._api.list_containers(f"{ENGINE_LABEL}={self._owner.engine}"):
                if _is_ours(found):
                    await self._removal.remove_now(found["Names"][0].lstrip("/"))
        await self._builder.remove_outdated()
        await self._removal.wait_for_ghosts()


@contextlib.asynccontextmanager
async def open_backend(home: Home, config: Any) -> AsyncIterator[DockerBackend]:
    """The engine that the docker CLI would use. Raises RuntimeUnavailable within three seconds.

    `config` is read by `Options.of`.
    """
    options = Options.of(config)
    async with open_first(options.host) as api:
        check_runtime(api.host, api.info, options.runtime)
        with _engine_id(home, options) as engine:
            owner = Owner(engine, str(home.state))
            async with _backend_on(api, home, owner, options) as backend:
                yield backend


@contextlib.contextmanager
def _engine_id(home: Home, options: Options) -> Iterator[str]:
    """The engine's, or one of our own, whose lock we hold: without it others would sweep our things."""
    if options.engine:
        yield options.engine
        return
    engine = new_id("en")
    with hold_engine_lock(home, engine, role="backend"):
        yield engine


@contextlib.asynccontextmanager
async def _backend_on(
    api: DockerApi, home: Home, owner: Owner, options: Options
) -> AsyncIterator[DockerBackend]:
    failure: Exception | None = None
    async with contextlib.AsyncExitStack() as at_the_end:
        async with anyio.create_task_group() as tasks:
            backend = DockerBackend(api, home, owner, tasks, options)
            at_the_end.push_async_callback(_clean_up, backend)
            backend.prepare()
            tasks.start_soon(backend.remove_orphans)
            try:
                yield backend
            except Exception as error:  # raised below: the task group would wrap it in another
                failure = error
            finally:
                tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _clean_up(backend: DockerBackend) -> None:
    with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_WITHIN):
        await backend.remove_own()


def _is_ours(found: dict[str, Any]) -> bool:
    return any(name.startswith(f"/{NAME}") for name in found.get("Names") or ())


def _is_about_image(error: DockerFailure) -> bool:
    return error.status == 404 and "image" in str(error).lower()
