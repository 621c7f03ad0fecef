"""Images of the Docker backend: each layer one commit, tagged `minimodal/<digest>`.

An image that is there costs one look-up. Settings (environment, working directory, command) are no
commits: the backend gives them to each container it starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from anyio import to_thread

from minimodal.backends.bundle import bundle
from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_requests import DockerFailure
from minimodal.backends.docker_spec import Bind
from minimodal.backends.mounts import resolve_mounts
from minimodal.home import Home
from minimodal.layers import (
    AptInstall,
    Base,
    CopyFiles,
    Dockerfile,
    ImageSpec,
    Layer,
    LocalFile,
    PipInstall,
    RunCommands,
    RunFunction,
    UvSync,
)
from minimodal.protocols import Report
from minimodal.recipe import describe
from minimodal.types import ImageRef, Mount

from . import docker_commands as commands
from . import in_use
from .build import Builder, Objects, Step, StepFailed, steps_of
from .build_function import check_python, inputs_of, run_function_command
from .docker_base import pull
from .docker_commands import Run
from .docker_dockerfile import build_dockerfile
from .docker_files import archive, open_root, staging, sweep_staging
from .docker_given import Given
from .docker_network_settings import build_network
from .docker_step import BuildContainer, BuildContainers
from .settings import Settings, image_ref, over, settings_of
from .shelves import REPOSITORY, docker_record
from .staging import place


class DockerBuilder:
    """See `Backend.build`. `host_env` is the environment that the engine was started with."""

    def __init__(
        self,
        api: DockerApi,
        home: Home,
        containers: BuildContainers,
        *,
        host_env: Mapping[str, str],
        objects: Objects,
        local: bool = True,
    ) -> None:
        """`local`: whether the engine can mount this machine's files."""
        self._api = api
        self._local = local
        self._home = home
        self._containers = containers
        self._host_env = host_env
        self._objects = objects
        self._known: set[str] = set()  # digests whose images were there when we last looked
        self._outdated: set[str] = set()
        self._swept = False
        self._builder = Builder(
            home.cache / "docker-locks", self._known.__contains__, self._make, look=self._is_there
        )

    async def build(self, spec: ImageSpec, report: Report) -> ImageRef:
        """Raises BuildError that names the step."""
        if not self._swept:
            self._swept = True
            await to_thread.run_sync(sweep_staging, self._home)
        await self._look(spec)
        top = await self._builder.build(spec, report)
        name = repository(top.digest)
        said = await self._config(name)
        found = image_ref(spec, name, commands.PYTHON, _env_of(said).items())
        workdir = found.workdir or said.get("WorkingDir") or None
        self.note_use(found)
        return found._replace(workdir=None if workdir == "/" else workdir)

    def note_use(self, image: ImageRef) -> None:
        """For `minimodal image ls` and `prune`: it was just built, or a container starts with it."""
        if image.name.startswith(REPOSITORY):
            in_use.note(self._home, docker_record(image.name.removeprefix(REPOSITORY)))

    async def _look(self, spec: ImageSpec) -> None:
        """Which images are there now: from the top, so that a built image costs one request."""
        digests = [step.digest for step in steps_of(spec)]
        self._known.difference_update(digests)
        for index in reversed(range(len(digests))):
            if await self._api.image(repository(digests[index])) is not None:
                self._known.update(digests[: index + 1])
                return

    async def _is_there(self, digest: str) -> bool:
        return await self._api.image(repository(digest)) is not None

    async def _make(self, step: Step, report: Report) -> None:
        """Make one layer; a forced build takes the place of the one before."""
        name = repository(step.digest)
        before = await self._api.image(name)
        try:
            await self._make_layer(step, name, report)
        except DockerFailure as error:
            raise self._in_words(error) from error
        if before is not None:
            self._outdated.add(before["Id"])
            await self.remove_outdated()
        self._known.add(step.digest)
        in_use.note(self._home, docker_record(step.digest))

    async def remove_outdated(self) -> None:
        """Remove what forced builds have replaced, as far as no container and no image needs it."""
        for image in tuple(self._outdated):
            with suppress(DockerFailure):
                await self._api.remove_image(image)
                self._outdated.discard(image)

    async def _make_layer(self, step: Step, name: str, report: Report) -> None:
        layer = step.layer
        match layer:
            case Base():
                await pull(self._api, layer, await self._values(layer), report)
                await self._begin(layer.tag, layer.add_python, step, report)
            case Dockerfile():
                await self._from_dockerfile(layer, step, name, report)
            case CopyFiles():
                await self._copy(layer, step, name)
            case _:
                await self._run(step, name, report)

    async def _run(self, step: Step, name: str, report: Report) -> None:
        layer, settings = step.layer, settings_of(step.below)
        values = await self._values(layer)
        network = build_network(self._host_env, layer)
        async with self._objects.volumes_for(layer) as volumes:
            if volumes:
                self._require_local()
            with staging(self._home, self._containers.engine) as staged:
                runs = self._runs(layer, settings)
                await to_thread.run_sync(place, _staged_files(layer), staged)
                base = {**commands.ENV, **network.env}
                if any("$PATH" in value or "${PATH}" in value for value in settings.env.values()):
                    base = {**_env_of(await self._config(_parent_of(step))), **base}
                env = {
                    **over(base, settings.env),
                    **dict(getattr(layer, "env", ())),
                    **values,
                }
                timeout = layer.timeout if isinstance(layer, RunFunction) else 3600.0
                given = Given(
                    [*self._binds(layer, staged, volumes), *network.binds],
                    uv=isinstance(layer, (PipInstall, UvSync)),
                    local=self._local,
                )
                async with self._containers.running(
                    _parent_of(step), given.mounts, host_network=network.needs_host
                ) as container:
                    await given.bring(container, env, report)
                    for run in runs:
                        hidden = tuple(values.values())
                        await container.run(run, env, report, hidden=hidden, timeout=timeout)
                    await given.take_away(container, report)
                    await container.commit(name, describe(layer))

    async def _config(self, name: str) -> Mapping[str, Any]:
        return ((await self._api.image(name)) or {}).get("Config") or {}

    def _runs(self, layer: Layer, settings: Settings) -> list[Run]:
        match layer:
            case PipInstall():
                return commands.pip_install(layer)
            case UvSync():
                return commands.uv_sync(layer)
            case AptInstall():
                return commands.apt_install(layer)
            case RunCommands():
                return commands.run_commands(layer, settings.shell, settings.workdir)
            case RunFunction():
                check_python(layer, settings.python)
                paths = f"{commands.SOURCES}:{commands.BUNDLE}"
                argv = run_function_command(layer, commands.PYTHON, paths, commands.BLOB)
                return commands.run_function(layer, argv)
        raise StepFailed(f"{type(layer).__name__} cannot be built here")

    def _binds(self, layer: Layer, staged: Path, volumes: Sequence[Mount]) -> list[Bind]:
        binds = [Bind(str(staged), commands.STAGED)]
        if isinstance(layer, RunFunction):
            blob, sources = inputs_of(self._home, layer)
            binds.append(Bind(str(blob), commands.BLOB))
            binds.append(Bind(str(bundle(self._home)), commands.BUNDLE))
            if sources is not None:
                binds.append(Bind(str(sources), commands.SOURCES))
        binds += [
            Bind(str(mount.source), mount.target, mount.read_only)
            for mount in resolve_mounts(self._home, volumes)
        ]
        return binds

    async def _copy(self, layer: CopyFiles, step: Step, name: str) -> None:
        with staging(self._home, self._containers.engine) as directory:
            packing = archive(layer.files, directory)
            packed = await to_thread.run_sync(packing.__enter__)
            try:
                async with self._containers.stopped(_parent_of(step)) as container:
                    await container.put(packed)
                    await container.commit(name, describe(layer))
            finally:
                await to_thread.run_sync(packing.__exit__, None, None, None)

    async def _from_dockerfile(
        self, layer: Dockerfile, step: Step, name: str, report: Report
    ) -> None:
        if layer.secrets:
            raise StepFailed(
                "secrets in Dockerfile instructions would stay readable in `docker history`; "
                "use run_commands(…, secrets=…)"
            )
        parent = repository(step.parent) if step.parent else None
        target = name if parent else f"minimodal-part/{step.digest}"
        network = build_network(self._host_env)
        with staging(self._home, self._containers.engine) as directory:
            await build_dockerfile(
                self._api,
                layer,
                directory,
                parent=parent,
                settings=settings_of(step.below),
                tag=target,
                env=network.proxies,
                report=report,
            )
        if parent is None:
            try:
                await self._begin(target, layer.add_python, step, report)
            finally:
                with suppress(DockerFailure):
                    await self._api.remove_image(target)

    async def _begin(self, image: str, version: str | None, step: Step, report: Report) -> None:
        """Make the lowest layer of an image from what others have made."""
        words = describe(step.layer) + (f" + Python {version}" if version else "")
        if version is None:
            await self._begin_as_it_is(image, step, words, report)
            return
        network = build_network(self._host_env)
        given = Given(network.binds, uv=True, local=self._local)
        env = {**commands.ENV, **network.env}
        async with self._containers.running(
            image, given.mounts, host_network=network.needs_host
        ) as container:
            await given.bring(container, env, report)
            for run in commands.add_python(version):
                await container.run(run, env, report)
            await given.take_away(container, report)
            await _commit_base(container, step, words)

    async def _begin_as_it_is(self, image: str, step: Step, words: str, report: Report) -> None:
        try:
            async with self._containers.running(image, (), host_network=False) as container:
                await container.run(commands.compile_library(), {}, report)
                await _commit_base(container, step, words)
        except StepFailed:  # it has no shell, for instance: what cannot run can still be copied
            async with self._containers.stopped(image) as container:
                await _commit_base(container, step, words)

    def _require_local(self) -> None:
        if not self._local:
            raise StepFailed(
                "the Docker engine runs on another machine or in a virtual one, which cannot mount "
                "the volumes of this step. Run minimodal where the engine runs, or use another backend"
            )

    async def _values(self, layer: Layer) -> Mapping[str, str]:
        ids: Sequence[str] = getattr(layer, "secrets", ())
        if isinstance(layer, Base) and layer.secret:
            ids = (layer.secret,)
        return await self._objects.secrets(ids)

    def _in_words(self, error: DockerFailure) -> StepFailed:
        if "no space left" in str(error).lower():
            root = self._api.info.get("DockerRootDir")
            return StepFailed(f"the disk of Docker's data ({root}) is full: {error}")
        return StepFailed(str(error), error.code)


def repository(digest: str) -> str:
    """The name under which a layer's image is tagged."""
    return f"{REPOSITORY}{digest}"


async def _commit_base(container: BuildContainer, step: Step, words: str) -> None:
    await container.put(open_root())
    await container.commit(repository(step.digest), words)


def _parent_of(step: Step) -> str:
    if step.parent is None:
        raise StepFailed("an image begins with a base or a Dockerfile")
    return repository(step.parent)


def _staged_files(layer: Layer) -> tuple[LocalFile, ...]:
    match layer:
        case PipInstall():
            return (*layer.requirements, *layer.included)
        case UvSync():
            return layer.project
    return ()


def _env_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The environment that an image says its containers have."""
    entries = (entry.partition("=") for entry in config.get("Env") or () if "=" in entry)
    return {name: value for name, _, value in entries}
