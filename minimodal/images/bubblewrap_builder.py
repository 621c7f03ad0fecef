"""Images of the bubblewrap backend: each layer is a directory of what a step wrote in its sandbox.

The base is an environment of one of the host's Pythons at /opt/venv, over the host's own system
directories. Everything that runs, runs in a `BuildSandbox`, also what a package's setup.py does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
from anyio import to_thread

from minimodal.backends.bundle import bundle
from minimodal.backends.mounts import resolve_mounts
from minimodal.backends.rootfs import SYSTEM
from minimodal.errors import BuildError
from minimodal.home import Home
from minimodal.layers import AptInstall, Base, ImageSpec, RunFunction, Workdir, layer_digest
from minimodal.protocols import Report
from minimodal.recipe import describe
from minimodal.types import ImageRef, Mount

from . import apt, base_layer, sandbox_steps
from .build import SETTINGS, Builder, Objects, Step, file_lock
from .build_function import check_python, inputs_of
from .build_sandbox import BuildIdentity, BuildSandbox, build_identity
from .dockerfile import translate
from .host_python import find_python
from .index_settings import local_paths, package_environment
from .layer_store import Draft, LayerStore, StoredLayer, remove_tree
from .running import STEP_TIMEOUT, Command
from .sandbox_steps import Run, commands_of, write_shims
from .settings import image_ref, over, settings_of
from .uv import find_uv

# bwrap cannot start in a directory that is not there, so a Workdir is a layer that makes it.
_SETTINGS = tuple(kind for kind in SETTINGS if kind is not Workdir)


@asynccontextmanager
async def open_bubblewrap_builder(
    home: Home,
    bwrap: str,
    sandbox_uid: int,
    host_env: Mapping[str, str],
    objects: Objects,
) -> AsyncIterator[BubblewrapBuilder]:
    """`sandbox_uid`: the host's uid of the containers' user. What forced builds replace goes at the end."""
    async with AsyncExitStack() as stack:
        yield BubblewrapBuilder(home, bwrap, sandbox_uid, host_env, objects, stack)


class BubblewrapBuilder:
    """See `Backend.build`. Made by `open_bubblewrap_builder`."""

    def __init__(
        self,
        home: Home,
        bwrap: str,
        sandbox_uid: int,
        host_env: Mapping[str, str],
        objects: Objects,
        stack: AsyncExitStack,
    ) -> None:
        self._home = home
        self._bwrap = bwrap
        self._host_env = host_env
        self._objects = objects
        self._stack = stack  # what lives until the backend is closed
        self._store = LayerStore(home)
        self._builder = Builder(home.layers / ".locks", self._is_there, self._make, _SETTINGS)
        self._bases: dict[str, StoredLayer] = {}  # by the digest of the image's Base layer
        self.host = _host_key()  # of the system that layers are differences to
        self._swept = False
        self._identity = build_identity(sandbox_uid)
        self._apt = anyio.Lock()  # apt's own locks make the second one fail, not wait

    async def build(self, spec: ImageSpec, report: Report) -> ImageRef:
        """Raises BuildError."""
        if not self._swept:
            self._swept = True
            await to_thread.run_sync(self._store.sweep)
        layers = translate(spec)
        base = await to_thread.run_sync(self._base_of, layers)
        top = await self._builder.build(layers, report)
        name = base.digest if isinstance(top.layer, Base) else top.digest
        os.utime(self._home.layers / name)  # last use
        env = {"PATH": base_layer.PATH, "VIRTUAL_ENV": base_layer.ENVIRONMENT}
        ref = image_ref(layers, name, base_layer.PYTHON, env.items())
        return ref._replace(digest=spec.digest)

    def digest_of(self, spec: ImageSpec) -> str:
        """The name of its topmost layer in the store."""
        return translate(spec).digest

    def _base_of(self, spec: ImageSpec) -> StoredLayer:
        """The base of an image's layers. Refuses, before anything is built, what cannot be here."""
        first = spec.layers[0]
        if not isinstance(first, Base) or not (first.python or first.add_python):
            tag = first.tag if isinstance(first, Base) else type(first).__name__
            raise BuildError(
                f"step 1 of {len(spec.layers)}: the bubblewrap backend has this machine's own files as "
                f"its base and cannot have {tag}; python:X.Y images and add_python= work. Use "
                "--backend docker for others."
            )
        settings = settings_of(spec.layers)
        for layer in spec.layers:
            if isinstance(layer, RunFunction):
                check_python(layer, settings.python)
        try:
            python = find_python(settings.python)
        except BuildError as error:
            raise BuildError(f"step 1 of {len(spec.layers)} failed: {error}") from None
        base = base_layer.base_layer(self._home, python.path, python.minor, self._identity.give)
        self._bases[layer_digest("", first)] = base
        return base

    def _is_there(self, digest: str) -> bool:
        """Whether a layer and all below it are there, on a base that this machine still has."""
        if digest in self._bases:
            return True
        layer = self._store.find(digest)
        if layer is None or layer.meta.get("host") != self.host:
            return False
        while layer is not None and layer.parent is not None:
            layer = self._store.find(layer.parent)
        return layer is not None and any(b.digest == layer.digest for b in self._bases.values())

    async def _make(self, step: Step, report: Report) -> None:
        if isinstance(step.layer, Base):
            return  # made by _base_of: three files
        assert step.parent is not None
        base = self._bases.get(step.parent)
        parent = base.digest if base else step.parent
        below = await to_thread.run_sync(self._store.stack, parent)
        async with self._objects.volumes_for(step.layer) as volumes, self._draft() as draft:
            sandbox = await to_thread.run_sync(self._sandbox, step, draft, below, volumes)
            values = await self._objects.secrets(getattr(step.layer, "secrets", ()))
            env = self._env(step) | dict(getattr(step.layer, "env", ())) | dict(values)
            if isinstance(step.layer, AptInstall):
                async with self._apt, file_lock(self._home.layers / ".locks" / "apt", _quiet):
                    run = apt.command(step.layer, self._identity, self._home)
                    await self._run(sandbox, run, env | apt.environment(), values, report)
            else:
                settings = settings_of((*step.below, step.layer))
                staged = draft.path / "staged"
                runs = await to_thread.run_sync(commands_of, step.layer, settings, staged)
                await to_thread.run_sync(_give_all, self._identity, staged)
                for run in runs:
                    await self._run(sandbox, run, env, values, report)
            await to_thread.run_sync(self._finish, step, parent, sandbox)

    async def _run(
        self,
        sandbox: BuildSandbox,
        run: Run,
        env: Mapping[str, str],
        secrets: Mapping[str, str],
        report: Report,
    ) -> None:
        hidden, timeout = tuple(secrets.values()), run.timeout or STEP_TIMEOUT
        command = Command(run.argv, env, run.shown, hidden=hidden, timeout=timeout)
        await sandbox.run(command, report)

    def _sandbox(
        self,
        step: Step,
        draft: Draft,
        below: tuple[StoredLayer, ...],
        volumes: tuple[Mount, ...],
    ) -> BuildSandbox:
        """With all that the step may need bound below /run, which is of no layer."""
        identity = self._identity
        identity.give(draft.files)
        places = draft.path / "staged", draft.path / "unpacked"
        for place in places:
            identity.give(_made(place))
        write_shims(draft.path / "shims")
        shared = os.getuid() != 0
        cache = identity.give(_made(self._home.cache / ("uv" if shared else "uv-sandbox")))
        binds = [(path, path, False) for path in _outside_system(self._network())]
        binds += [(path, path, False) for layer in below for path in layer.meta.get("prefixes", ())]
        binds += [
            (find_uv(), sandbox_steps.UV, False),
            (str(cache), sandbox_steps.UV_CACHE, True),
            (str(draft.path / "shims" / "bin"), sandbox_steps.BIN, False),
            (str(draft.path / "shims" / "modules"), sandbox_steps.SHIMS, False),
            (str(places[0]), sandbox_steps.STAGED, True),
            (str(places[1]), apt.UNPACKED, True),
        ]
        if isinstance(step.layer, RunFunction):
            blob, sources = inputs_of(self._home, step.layer)
            binds += [(str(blob), sandbox_steps.BLOB, False)]
            binds += [(str(bundle(self._home)), sandbox_steps.BUNDLE, False)]
            binds += [(str(sources), sandbox_steps.SOURCES, False)] if sources else []
        for mount in resolve_mounts(self._home, volumes):
            _give_all(identity, mount.source)
            binds += [(str(mount.source), mount.target, not mount.read_only)]
        if isinstance(step.layer, AptInstall):
            binds += apt.binds(self._home, identity)
        return BuildSandbox(self._bwrap, identity, draft, below, tuple(dict.fromkeys(binds)))

    def _finish(self, step: Step, parent: str, sandbox: BuildSandbox) -> None:
        """Make the draft a layer. Blocking."""
        draft = sandbox.draft
        apt.merge(draft.path / "unpacked", draft.files)
        sandbox.clean()
        for name in ("staged", "unpacked", "shims"):
            remove_tree(draft.path / name)
        sandbox.hand_over()
        if self._store.find(step.digest) is not None:
            self._retire(step.digest)
        self._store.commit(
            draft, step.digest, parent, {"host": self.host, "step": describe(step.layer)}
        )

    def _retire(self, digest: str) -> None:
        """A forced build replaces a layer that containers may have open: it goes when we close."""
        draft = self._stack.enter_context(self._store.draft())
        os.rename(self._home.layers / digest, draft.path / "retired")

    def _network(self) -> dict[str, str]:
        return package_environment(self._host_env)

    def _env(self, step: Step) -> dict[str, str]:
        own = {
            "HOME": sandbox_steps.HOME_INSIDE,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **self._network(),
            "UV_CACHE_DIR": sandbox_steps.UV_CACHE,
            "UV_LINK_MODE": "copy",  # the cache is another mount
            "UV_NO_MANAGED_PYTHON": "1",
            "UV_PROJECT_ENVIRONMENT": base_layer.ENVIRONMENT,
            "VIRTUAL_ENV": base_layer.ENVIRONMENT,
            "PYTHONPATH": sandbox_steps.SHIMS,
            "PATH": sandbox_steps.PATH,
        }
        return over(own, settings_of(step.below).env)

    @asynccontextmanager
    async def _draft(self) -> AsyncIterator[Draft]:
        """In threads: removing what a failed step has written may take a while."""
        manager = self._store.draft()
        draft = await to_thread.run_sync(manager.__enter__)
        try:
            yield draft
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(manager.__exit__, None, None, None)


def _quiet() -> None:
    """Nobody needs to know who waits for apt."""


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True, mode=0o755)
    return path


def _give_all(identity: BuildIdentity, directory: Path) -> None:
    for place, names, files in os.walk(directory):
        for name in (".", *names, *files):
            identity.give(Path(place, name))


def _outside_system(environment: Mapping[str, str]) -> list[str]:
    """What the settings name and the sandbox would not see of itself."""
    return [path for path in local_paths(environment) if path.split("/")[1] not in SYSTEM]


def _host_key() -> str:
    """Layers are differences to this system's files: another release of it makes them worthless."""
    try:
        release = Path("/etc/os-release").read_bytes()
    except OSError:
        release = b""
    return hashlib.sha256(release + os.uname().machine.encode()).hexdigest()[:16]
