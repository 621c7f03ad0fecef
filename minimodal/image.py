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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from .compat import Absent
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
    packages_of,
    pip_options,
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
    RunFunction,
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


class Image:
    """Start with `Image.debian_slim()`, `from_registry` or `from_dockerfile`, then add steps.

    Steps take `env` and `secrets`, which are never stored, and `force_build` (anew, with all that follows).
    Those that install take uv's `index_url`, `extra_index_url`, `find_links`, `pre`, `extra_options`, and
    `uv_version`, without effect. A wrong argument raises InvalidError at once, a step that fails
    ImageBuildError when the image is first used.
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
        """Debian with Python of `python_version`, such as "3.11"; by default the one that runs here."""
        version = check_version("python_version", python_version)
        step = Ready(Base(f"python:{version}-slim", python=version))
        return Image((step,), (), 0 if force_build else None)

    @staticmethod
    def from_registry(
        tag: str,
        secret: HasSecretId | None = None,
        *,
        setup_dockerfile_commands: Sequence[str] = (),
        force_build: bool = False,
        add_python: str | None = None,
    ) -> Image:
        """Any image `tag` with Python 3.10+, or with `add_python="3.11"`; `secret` logs in, `setup_dockerfile_commands` run first."""
        if not isinstance(tag, str) or not tag.strip():
            raise InvalidError(
                f"from_registry takes an image's tag, such as 'python:3.11-slim'; got {tag!r}"
            )
        base = Base(tag.strip(), python_of_tag(tag), added_python(add_python))
        first = Ready(base, secrets_of([secret]))
        image = Image((first,), (), 0 if force_build else None)
        return image.dockerfile_commands(*setup_dockerfile_commands)

    @staticmethod
    def from_dockerfile(
        path: str | os.PathLike[str],
        *,
        force_build: bool = False,
        context_dir: str | os.PathLike[str] | None = None,
        env: Env = None,
        secrets: Secrets = None,
        add_python: str | None = None,
        build_args: Mapping[str, str] | None = None,
        ignore: Sequence[str] | Ignore | None = None,
    ) -> Image:
        """The Dockerfile at `path`, with `build_args` and `add_python`. Its context is `context_dir`, by default the current directory.

        Without `ignore`, a `.dockerignore` beside the Dockerfile or in the context is honoured.
        """
        from .recipe_files import docker_step

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
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install packages. `uv` does it, with one cache shared by all builds."""
        names = packages_of("pip_install", "packages", packages)
        options = pip_options(
            names, index_url, extra_index_url, find_links, pre, extra_options, env
        )
        return self._install(options, (), secrets, force_build)

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
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install packages and the files in `requirements` in one step."""
        check_uv_version(uv_version)
        names = packages_of("uv_pip_install", "packages", packages)
        files = strings("uv_pip_install", "requirements", requirements or ())
        options = pip_options(
            names, index_url, extra_index_url, find_links, pre, extra_options, env
        )
        return self._install(options, files, secrets, force_build)

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
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install what the local file `requirements_txt` lists. Its content is what the cache looks at."""
        options = pip_options((), index_url, extra_index_url, find_links, pre, extra_options, env)
        return self._install(options, (requirements_txt,), secrets, force_build)

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
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install the dependencies in `pyproject_toml`, a local file, with those of `optional_dependencies`."""
        from .recipe_files import Pyproject

        method = "pip_install_from_pyproject"
        groups = strings(method, "optional_dependencies", optional_dependencies)
        options = pip_options((), index_url, extra_index_url, find_links, pre, extra_options, env)
        step = Pyproject(Path(pyproject_toml), groups, options, secrets_of(secrets))
        return self._step(step, force_build)

    def uv_sync(
        self,
        uv_project_dir: str | os.PathLike[str] = "./",
        *,
        force_build: bool = False,
        groups: Sequence[str] | None = None,
        extras: Sequence[str] | None = None,
        frozen: bool = True,
        extra_options: str = "",
        uv_version: str | None = None,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install the locked dependencies in `uv_project_dir`, of `groups` and `extras`; `frozen`: as uv.lock is."""
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
        return self._step(Project(Path(uv_project_dir), sync, secrets_of(secrets)), force_build)

    def apt_install(
        self,
        *packages: Packages,
        force_build: bool = False,
        env: Env = None,
        secrets: Secrets = None,
    ) -> Image:
        """Install Debian packages."""
        names = packages_of("apt_install", "packages", packages)
        if not names:
            return self
        layer = AptInstall(names, env_items("env", env))
        return self._step(Ready(layer, secrets_of(secrets)), force_build)

    def run_commands(
        self,
        *commands: Packages,
        env: Env = None,
        secrets: Secrets = None,
        force_build: bool = False,
    ) -> Image:
        """Run shell commands in the image. Secrets are visible to the step and never kept."""
        lines = strings("run_commands", "commands", commands)
        if not lines:
            return self
        layer = RunCommands(lines, env_items("env", env))
        return self._step(Ready(layer, secrets_of(secrets)), force_build)

    def dockerfile_commands(
        self,
        *dockerfile_commands: Packages,
        env: Env = None,
        secrets: Secrets = None,
        context_dir: str | os.PathLike[str] | None = None,
        force_build: bool = False,
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
        return self._step(step, force_build)

    def run_function(
        self,
        raw_f: Callable[..., Any],
        *,
        env: Env = None,
        secrets: Secrets = None,
        volumes: Mapping[str | os.PathLike[str], Any] | None = None,
        timeout: float = 60 * 60,
        force_build: bool = False,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Image:
        """Run the function `raw_f` while building, with `volumes`, and keep the files that it leaves.

        It may take `timeout` seconds.
        Runs again when its source, what it refers to in its module, or its arguments change.
        """
        from .recipe_function import FunctionStep

        if not callable(raw_f) or not hasattr(raw_f, "__code__"):
            raise InvalidError(
                f"run_function takes a plain Python function, not {type(raw_f).__name__}; give it the "
                "function without @app.function"
            )
        if timeout <= 0:
            raise InvalidError(f"run_function: timeout must be above 0 seconds, not {timeout}")
        mounted = tuple(
            (check_remote_path("run_function(volumes=)", str(path)), volume)
            for path, volume in (volumes or {}).items()
        )
        layer = RunFunction("", "", "", env=env_items("env", env), timeout=float(timeout))
        step = FunctionStep(
            raw_f, tuple(args), dict(kwargs or {}), layer, secrets_of(secrets), mounted
        )
        return self._step(step, force_build)

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
        """Put what is in `local_path` at `remote_path`, but what `ignore` matches; `copy` as in `add_local_file`."""
        target = check_remote_path("add_local_dir", os.fspath(remote_path))
        return self._add(Copy(Path(local_path), target, ignore_from(ignore), True), copy)

    def add_local_python_source(
        self,
        *modules: str,
        copy: bool = False,
        ignore: Sequence[str] | Ignore = NON_PYTHON_FILES,
    ) -> Image:
        """Put local modules where the container imports them, only `.py` files; `copy` as in `add_local_file`."""
        names = strings("add_local_python_source", "modules", modules)
        for name in names:
            if not all(part.isidentifier() for part in name.split(".")):
                raise InvalidError(f"add_local_python_source takes module names, not {name!r}")
        return self._add(PythonSource(names, ignore_from(ignore)), copy) if names else self

    def copy_local_file(
        self, local_path: str | os.PathLike[str], remote_path: str | os.PathLike[str] = "./"
    ) -> Image:
        """Copy `local_path` into the image; a relative `remote_path` lies in /root."""
        remote = os.fspath(remote_path)
        slash = "/" if remote.endswith(("/", ".")) else ""
        target = os.path.normpath(os.path.join("/root", remote)) + slash
        return self.add_local_file(local_path, target, copy=True)

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
        read = [read_step(n, count, step.mounts, home) for n, step in adds]
        mounts = tuple(mount for found in read for mount in found)
        force = 0 if forced() else self._force_from
        return ImageSpec(layers, mounts, force, self._recipe())

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

    def _step(self, step: Step, force_build: bool = False) -> Image:
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
    ) -> Image:
        """Packages, and what requirement files list; nothing at all is no step."""
        step: Step = Ready(options, secrets_of(secrets))
        if files:
            from .recipe_files import Requirements

            step = Requirements(tuple(map(Path, files)), options, secrets_of(secrets))
        return self._step(step, force_build) if files or options.packages else self

    def _add(self, step: Copy | PythonSource, copy: bool) -> Image:
        if copy:
            return self._step(step)
        return Image(self._steps, (*self._mounts, step), self._force_from)
