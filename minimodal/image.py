"""`Image`: what a container's file system is made of, written down step by step.

An Image is immutable and lazy: each method gives a new one, and no file is read before it is
resolved by `spec()`, so a script imports at once, also in a container where the local files are
missing. Building is the engine's part; nothing here knows a backend. Steps that read files import their
module when they are used: `import minimodal` is to be quick.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from .compat import Absent, check_build_gpu
from .errors import InvalidError
from .face import both
from .ignore import NON_PYTHON_FILES, FilePatternMatcher, Ignore, ignore_from
from .image_arguments import (
    added_python,
    check_remote_path,
    check_uv_version,
    check_version,
    command,
    env_items,
    forced,
    module_names,
    packages_of,
    pip_layer,
    python_of_tag,
    secrets_of,
    strings,
)
from .layers import (
    AptInstall,
    Base,
    Cmd,
    Entrypoint,
    ImageSpec,
    PipInstall,
    RunCommands,
    SetEnv,
    Shell,
    UvSync,
    Workdir,
)
from .recipe import Copy, Fixed, HasSecretId, PythonSource, Ready, Step, read_step, recipe_key

if TYPE_CHECKING:
    from .home import Home

P = ParamSpec("P")

__all__ = ["FilePatternMatcher", "Image"]

Secrets = Sequence[HasSecretId] | None
Env = Mapping[str, str | None] | None
Packages = str | Sequence[str]
Gpu = str | Sequence[str] | None


class Image:
    """Start with `Image.debian_slim()`, `from_registry` or `from_dockerfile`, then add steps.

    Steps take `env` and `secrets`, which only the step sees, and `force_build=True`, which builds it and
    all that follows anew. Steps that install packages take uv's options `index_url`,
    `extra_index_url`, `find_links`, `pre` and `extra_options`; `uv_version` is refused, and so is `gpu`:
    a build has none, and what the machine has of cores and MiB. A wrong argument raises InvalidError at
    once, a step that fails ImageBuildError when the image is first used.
    """

    __slots__ = ("_force_from", "_mounts", "_steps")

    def __init__(
        self,
        _steps: tuple[Step, ...] = (),
        _mounts: tuple[Copy | PythonSource | Fixed, ...] = (),
        _force_from: int | None = None,
    ) -> None:
        if not _steps:
            raise InvalidError("write Image.debian_slim() or Image.from_registry(tag), not Image()")
        self._steps, self._mounts, self._force_from = _steps, _mounts, _force_from

    from_aws_ecr = Absent("Image.from_aws_ecr")
    from_gcp_artifact_registry = Absent("Image.from_gcp_artifact_registry")
    from_id = Absent("Image.from_id")
    from_name = Absent("Image.from_name")
    from_scratch = Absent("Image.from_scratch")
    micromamba = Absent("Image.micromamba")
    poetry_install_from_file = Absent("Image.poetry_install_from_file")
    publish = Absent("Image.publish")

    @staticmethod
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """Debian with Python `python_version`, such as "3.11"; by default the version that runs here."""
        version = check_version("python_version", python_version)
        base = Ready(Base(f"python:{version}-slim", python=version))
        return Image((base,), (), 0 if force_build else None)

    @staticmethod
    def from_registry(
        tag: str,
        secret: HasSecretId | None = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """An image of a registry by its `tag`. It must have Python 3.10 or newer, or `add_python="3.11"`.

        `secret` holds the registry's login. `setup_dockerfile_commands` run before anything else.
        """
        if not isinstance(tag, str) or not tag.strip():
            raise InvalidError(
                f"from_registry takes an image's tag, such as 'python:3.11-slim'; got {tag!r}"
            )
        base = Base(tag.strip(), python_of_tag(tag), added_python(add_python))
        image = Image((Ready(base, secrets_of([secret])),), (), 0 if force_build else None)
        return image.dockerfile_commands(*setup_dockerfile_commands)

    @staticmethod
    def from_dockerfile(
        path: str | os.PathLike[str],
        *,
        force_build: bool = False,
        gpu: Gpu = None,
        context_dir: str | os.PathLike[str] | None = None,
        env: Env = None,
        secrets: Secrets = None,
        add_python: str | None = None,
        build_args: Mapping[str, str] | None = None,
        ignore: Sequence[str] | Ignore | None = None,
    ) -> Image:
        """An image built from the Dockerfile at `path`, with `build_args`.

        Its context is `context_dir`, by default the current directory. Without `ignore`, a
        `.dockerignore` beside the Dockerfile or in the context is honoured. `add_python="3.11"`
        adds a Python where it has none.
        """
        from .recipe_files import docker_step

        check_build_gpu(gpu)
        step = docker_step(Path(path), context_dir, env, secrets, build_args, ignore, add_python)
        return Image((step,), (), 0 if force_build else None)

    def pip_install(
        self,
        *packages: Packages,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        gpu: Gpu = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install packages with uv, which has one cache for all builds."""
        names = packages_of("pip_install", "packages", packages)
        options = pip_layer(names, index_url, extra_index_url, find_links, pre, extra_options, env)
        return self._install(options, (), secrets, force_build, gpu)

    def uv_pip_install(
        self,
        *packages: Packages,
        requirements: Sequence[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        uv_version: str | None = None,
        force_build: bool = False,
        gpu: Gpu = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install packages and the files in `requirements` in one step."""
        check_uv_version(uv_version)
        names = packages_of("uv_pip_install", "packages", packages)
        files = strings("uv_pip_install", "requirements", requirements or ())
        options = pip_layer(names, index_url, extra_index_url, find_links, pre, extra_options, env)
        return self._install(options, files, secrets, force_build, gpu)

    def pip_install_from_requirements(
        self,
        requirements_txt: str | os.PathLike[str],
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        gpu: Gpu = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install what the local file `requirements_txt` lists; it is built again when that changes."""
        options = pip_layer((), index_url, extra_index_url, find_links, pre, extra_options, env)
        return self._install(options, (requirements_txt,), secrets, force_build, gpu)

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str | os.PathLike[str],
        optional_dependencies: Sequence[str] = (),
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        gpu: Gpu = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install the dependencies of a local `pyproject_toml`, and those of `optional_dependencies`."""
        from .recipe_files import Pyproject

        method = "pip_install_from_pyproject"
        groups = strings(method, "optional_dependencies", optional_dependencies)
        options = pip_layer((), index_url, extra_index_url, find_links, pre, extra_options, env)
        step = Pyproject(Path(pyproject_toml), groups, options, secrets_of(secrets))
        return self._step(step, force_build, gpu)

    def uv_sync(
        self,
        uv_project_dir: str | os.PathLike[str] = "./",
        *,
        force_build: bool = False,
        gpu: Gpu = None,
        groups: Sequence[str] | None = None,
        extras: Sequence[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install the dependencies of the uv project in `uv_project_dir`, but not the project itself.

        `groups` and `extras` add theirs. `frozen` takes the versions of uv.lock as they are.
        """
        from .recipe_files import Project

        check_uv_version(uv_version)
        sync = UvSync(
            (),
            strings("uv_sync", "groups", groups or ()),
            strings("uv_sync", "extras", extras or ()),
            frozen,
            extra_options,
            env_items("env", env),
        )
        step = Project(Path(uv_project_dir), sync, secrets_of(secrets))
        return self._step(step, force_build, gpu)

    def apt_install(
        self,
        *packages: Packages,
        force_build: bool = False,
        gpu: Gpu = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install Debian packages."""
        names = packages_of("apt_install", "packages", packages)
        if not names:
            return self
        layer = AptInstall(names, env_items("env", env))
        return self._step(Ready(layer, secrets_of(secrets)), force_build, gpu)

    def run_commands(
        self,
        *commands: Packages,
        env: Env = None,
        secrets: Secrets = None,
        force_build: bool = False,
        gpu: Gpu = None,
    ) -> Image:
        """Run shell commands in the image. Secrets are visible to the step and never kept."""
        lines = strings("run_commands", "commands", commands)
        if not lines:
            return self
        layer = RunCommands(lines, env_items("env", env))
        return self._step(Ready(layer, secrets_of(secrets)), force_build, gpu)

    def dockerfile_commands(
        self,
        *dockerfile_commands: Packages,
        env: Env = None,
        secrets: Secrets = None,
        context_dir: str | os.PathLike[str] | None = None,
        force_build: bool = False,
        gpu: Gpu = None,
        ignore: Sequence[str] | Ignore | None = None,
        build_args: Mapping[str, str] | None = None,
    ) -> Image:
        """Instructions of a Dockerfile, `dockerfile_commands`, on top of this image."""
        lines = strings("dockerfile_commands", "dockerfile_commands", dockerfile_commands)
        if not lines:
            return self
        text = "\n".join(lines)
        from .recipe_files import docker_step

        step = docker_step(text, context_dir, env, secrets, build_args, ignore)
        return self._step(step, force_build, gpu)

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: Env = None,
        secrets: Secrets = None,
        volumes: Mapping[str | os.PathLike[str], Any] | None = None,
        timeout: float = 60 * 60,
        force_build: bool = False,
        gpu: Gpu = None,
        cpu: Any = None,
        memory: Any = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Image:
        """Run the function `raw_f` while building, with `volumes`, and keep the files that it leaves.

        It is called with `args` and `kwargs` and may take `timeout` seconds; `cpu` and `memory` are
        ignored. It runs again when its source, what it refers to in its module, or its arguments change.
        """
        from .recipe_function import function_step

        step = function_step(raw_f, args, kwargs, env, secrets, volumes, timeout)
        return self._step(step, force_build, gpu)

    def env(self, vars: Mapping[str, str] | None = None, /, **more: str) -> Image:
        """Set the environment variables in `vars` and `more`: `.env({"A": "1"})` or `.env(A="1")`."""
        items = env_items("env", {**(vars or {}), **more})
        return self._step(Ready(SetEnv(items))) if items else self

    def workdir(self, path: str | os.PathLike[str]) -> Image:
        """Set the working directory `path` of later steps and of the container."""
        return self._step(Ready(Workdir(os.fspath(path))))

    def entrypoint(self, entrypoint_commands: Sequence[str]) -> Image:
        """Set the ENTRYPOINT, a list of strings. It must run its arguments in the end."""
        return self._step(Ready(Entrypoint(command("entrypoint", entrypoint_commands))))

    def cmd(self, cmd: Sequence[str]) -> Image:
        """Set the default command, a list of strings."""
        return self._step(Ready(Cmd(command("cmd", cmd))))

    def shell(self, shell_commands: Sequence[str]) -> Image:
        """Set the shell that later `run_commands` use, a list such as ["/bin/bash", "-c"]."""
        return self._step(Ready(Shell(command("shell", shell_commands))))

    def add_local_file(
        self, local_path: str | os.PathLike[str], remote_path: str, *, copy: bool = False
    ) -> Image:
        """Put the file `local_path` at an absolute path; `remote_path="/dir/"` keeps its name.

        Without `copy=True` it is added when a container starts: a change rebuilds nothing, and no
        build step may follow.
        """
        target = check_remote_path("add_local_file", os.fspath(remote_path))
        if os.fspath(remote_path).endswith("/"):
            target = f"{target.rstrip('/')}/{Path(local_path).name}"
        return self._add(Copy(Path(local_path), target, FilePatternMatcher(), False), copy)

    def add_local_dir(
        self,
        local_path: str | os.PathLike[str],
        remote_path: str,
        *,
        copy: bool = False,
        ignore: Sequence[str] | Ignore = (),
    ) -> Image:
        """Put the files in `local_path` at `remote_path`, without those that `ignore` matches.

        `copy` is as in `add_local_file`.
        """
        target = check_remote_path("add_local_dir", os.fspath(remote_path))
        return self._add(Copy(Path(local_path), target, ignore_from(ignore), True), copy)

    def add_local_python_source(
        self,
        *modules: str,
        copy: bool = False,
        ignore: Sequence[str] | Ignore = NON_PYTHON_FILES,
    ) -> Image:
        """Put local `modules`, named as in `import`, where the container finds them.

        Only their `.py` files, unless `ignore` says otherwise. `copy` is as in `add_local_file`.
        """
        names = module_names(modules)
        return self._add(PythonSource(names, ignore_from(ignore)), copy) if names else self

    @contextmanager
    def imports(self) -> Iterator[None]:
        """Imports of packages that only this image has: elsewhere an ImportError is passed over."""
        try:
            yield
        except ImportError:
            if os.environ.get("MINIMODAL_IMAGE_RECIPE") == self._recipe():
                raise

    def pipe(
        self, func: Callable[Concatenate[Image, P], Image], *args: P.args, **kwargs: P.kwargs
    ) -> Image:
        """`func(image, *args, **kwargs)`, so that groups of steps can be functions."""
        return func(self, *args, **kwargs)

    @both
    async def build(self, app: Any) -> Image:
        """Build it now; `app` must be running. Raises ImageBuildError with the step and its output."""
        from .context import ask
        from .home import open_home
        from .layers import encode
        from .specs import image_spec

        spec = await image_spec(self, open_home())
        await ask("image.build", app=getattr(app, "app_id", None), image=encode(spec))
        return self

    def spec(self, home: Home | None = None) -> ImageSpec:
        """Read the local files and give the layers. Raises InvalidError and FileNotFoundError.

        With a home, snapshots of mounted files and pickles of `run_function` are kept there.
        """
        count = len(self._steps) + len(self._mounts)
        steps, adds = enumerate(self._steps, 1), enumerate(self._mounts, len(self._steps) + 1)
        layers = tuple(read_step(n, count, step.layer, home) for n, step in steps)
        mounts = (read_step(n, count, step.mounts, home) for n, step in adds)
        force = 0 if forced() else self._force_from
        return ImageSpec(layers, tuple(chain.from_iterable(mounts)), force, self._recipe())

    def digest(self) -> str:
        """The digest of what is built: equal images have equal digests. Mounted files don't count."""
        return self.spec().digest

    def _dependencies(self) -> tuple[Any, ...]:
        """Secrets and volumes of the steps, which must have their ids before `spec`."""
        found = [item for step in self._steps for item in getattr(step, "secrets", ())]
        found += [volume for step in self._steps for _, volume in getattr(step, "volumes", ())]
        return tuple(dict.fromkeys(found))

    def __repr__(self) -> str:
        return f"<Image {self._recipe()[:8]}: {len(self._steps) + len(self._mounts)} steps>"

    def _repr_html_(self) -> str:
        from .display import card

        steps = [repr(getattr(step, "content", step)) for step in self._steps + self._mounts]
        return card("Image", self._recipe()[:8], {"steps": steps})

    def _recipe(self) -> str:
        return recipe_key(self._steps + self._mounts)

    def _step(self, step: Step, force_build: bool = False, gpu: Gpu = None) -> Image:
        check_build_gpu(gpu)
        if self._mounts:
            raise InvalidError(
                "a build step follows add_local_*. Files added without copy=True are put in when a "
                "container starts, so these calls must be the last ones; or write copy=True to copy "
                "the files into the image, which is then rebuilt when they change."
            )
        force = self._force_from
        if force is None and force_build:
            force = len(self._steps)
        return Image((*self._steps, step), (), force)

    def _install(
        self,
        options: PipInstall,
        files: Sequence[str | os.PathLike[str]],
        secrets: Secrets,
        force_build: bool,
        gpu: Gpu,
    ) -> Image:
        """Packages, and what requirement files list; nothing at all is no step."""
        given = options, secrets_of(secrets)
        if not files:
            return self._step(Ready(*given), force_build, gpu) if options.packages else self
        from .recipe_files import Requirements

        return self._step(Requirements(tuple(map(Path, files)), *given), force_build, gpu)

    def _add(self, step: Copy | PythonSource, copy: bool) -> Image:
        if copy:
            return self._step(step)
        return Image(self._steps, (*self._mounts, step), self._force_from)
