"""Images of the process backend: one virtual environment for each layer that installs something.

    Home.environments/<digest>/venv/   a relocatable environment made by uv
    Home.environments/<digest>/done    written last: what lacks it is not there
    Home.environments/.draft-…         an environment being built

A layer's environment is its parent's, cloned by hard links, with the layer installed into it. What
needs a file system of its own (apt, files at absolute paths, shell commands) is refused by name.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from anyio import to_thread

from minimodal.backends.bundle import bundle
from minimodal.errors import BuildError
from minimodal.home import Home
from minimodal.layers import (
    Base,
    ImageSpec,
    Layer,
    PipInstall,
    RunCommands,
    RunFunction,
    UvSync,
)
from minimodal.protocols import Report
from minimodal.recipe import describe
from minimodal.types import ImageRef, Mount

from . import uv
from .base_layer import write_environment
from .build import Builder, Secrets, Step, StepFailed, no_secrets, steps_of
from .build_function import check_python, inputs_of, run_function_command
from .host_python import find_python
from .index_settings import package_environment
from .running import Command, run
from .settings import image_ref, mounts_of, over, settings_of
from .staging import place

ROOT = "/root"
_PROGRAMS = ("python", "python3", "pip", "pip3", "uv")
_SHELL_SIGNS = set("|&;<>$`*?()\n")


class ProcessBuilder:
    """See `Backend.build`. `host_env` is the environment that the engine was started with."""

    def __init__(
        self, home: Home, host_env: Mapping[str, str], secrets: Secrets = no_secrets
    ) -> None:
        self._home = home
        self._root = home.environments
        self._host_env = host_env
        self._secrets = secrets
        self._builder = Builder(self._root / ".locks", self._is_there, self._make)
        self._swept = False

    async def build(self, spec: ImageSpec, report: Report) -> ImageRef:
        """Raises BuildError, at once for a layer that this backend cannot have."""
        for step in steps_of(spec):
            _check(step)
        _check_mounts(mounts_of(spec))
        if not self._swept:
            self._swept = True
            await to_thread.run_sync(self._sweep)
        top = await self._builder.build(spec, report)
        venv = self._environment(top.digest)
        path = self._host_env.get("PATH", os.defpath)
        env = {"PATH": f"{venv / 'bin'}{os.pathsep}{path}", "VIRTUAL_ENV": str(venv)}
        os.utime(self._root / top.digest)  # last use
        return image_ref(spec, top.digest, str(venv / "bin" / "python"), env.items())

    def _environment(self, digest: str) -> Path:
        return self._root / digest / "venv"

    def _is_there(self, digest: str) -> bool:
        return (self._root / digest / "done").exists()

    async def _make(self, step: Step, report: Report) -> None:
        with self._draft() as draft:
            if isinstance(step.layer, Base):
                await to_thread.run_sync(self._make_base, step, draft)
            else:
                assert step.parent is not None
                parent = self._environment(step.parent)
                await to_thread.run_sync(_clone, parent, draft / "venv")
                await self._install(step, draft, report)
            await to_thread.run_sync(self._commit, draft, step)

    def _make_base(self, step: Step, draft: Path) -> None:
        try:
            python = find_python(settings_of((step.layer,)).python)
        except BuildError as error:
            raise StepFailed(str(error)) from None
        write_environment(draft / "venv", python.path, python.minor)
        with (draft / "venv" / "pyvenv.cfg").open("a") as config:
            config.write("relocatable = true\n")  # for uv: made here, used and cloned elsewhere

    async def _install(self, step: Step, draft: Path, report: Report) -> None:
        """Run the layer's command in the environment that the draft holds."""
        env = self._env(step, draft)
        values = await self._secrets(getattr(step.layer, "secrets", ()))
        env |= dict(getattr(step.layer, "env", ())) | dict(values)
        staged, python = draft / "staged", str(draft / "venv" / "bin" / "python")
        staged.mkdir()
        hidden = tuple(values.values())
        for argv, shown in await self._commands(step.layer, python, staged):
            command = Command(argv, env, shown, cwd=str(staged), hidden=hidden)
            await run(command, report)
        await to_thread.run_sync(shutil.rmtree, staged)

    async def _commands(
        self, layer: Layer, python: str, staged: Path
    ) -> list[tuple[list[str], str]]:
        binary = uv.find_uv()
        match layer:
            case PipInstall():
                await to_thread.run_sync(place, (*layer.requirements, *layer.included), staged)
                command = uv.pip_install(binary, layer, python, str(staged))
                return [(command, uv.shown(layer))]
            case UvSync():
                await to_thread.run_sync(place, layer.project, staged)
                return [(uv.sync(binary, layer, python, str(staged)), "uv sync")]
            case RunCommands():
                lines = ((_as_program(line, binary), line) for line in layer.commands)
                return [([_in(python, argv[0]), *argv[1:]], line) for argv, line in lines]
            case RunFunction():
                blob, sources = inputs_of(self._home, layer)
                paths = f"{sources or ''}:{bundle(self._home)}"
                argv = run_function_command(layer, python, paths, str(blob))
                return [(argv, f"run_function({layer.name})")]
            case _:
                raise StepFailed(f"{type(layer).__name__} cannot be built here")

    def _env(self, step: Step, draft: Path) -> dict[str, str]:
        venv = str(draft / "venv")
        path = self._host_env.get("PATH", os.defpath)
        own = {
            "HOME": self._host_env.get("HOME", "/"),
            "LANG": "C.UTF-8",
            **package_environment(self._host_env),
            "UV_CACHE_DIR": str(self._home.cache / "uv"),
            "VIRTUAL_ENV": venv,
            "UV_PROJECT_ENVIRONMENT": venv,
            "PATH": f"{venv}/bin{os.pathsep}{path}",
        }
        return over(own, settings_of(step.below).env)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        self._root.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=f".draft-{os.getpid()}-", dir=self._root))
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _commit(self, draft: Path, step: Step) -> None:
        """One rename. What was there under that digest before (a forced build) goes away after it."""
        (draft / "done").write_text(describe(step.layer))
        old = Path(tempfile.mkdtemp(prefix=f".draft-{os.getpid()}-", dir=self._root))
        if (self._root / step.digest).exists():
            os.rename(self._root / step.digest, old / "old")
        os.rename(draft, self._root / step.digest)
        shutil.rmtree(old, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the drafts of builders that died."""
        for entry in self._root.glob(".draft-*"):
            pid = int(entry.name.split("-")[1])
            if pid != os.getpid() and _dead(pid):
                shutil.rmtree(entry, ignore_errors=True)


def _dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _clone(parent: Path, target: Path) -> None:
    """Hard links cost neither time nor space; uv and pip replace files, they never write into one."""
    try:
        shutil.copytree(parent, target, symlinks=True, copy_function=os.link)
    except shutil.Error:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(parent, target, symlinks=True)  # a file system without hard links


def _check(step: Step) -> None:
    """Refuse, before anything is built, what plain processes cannot have."""
    reason, layer = "", step.layer
    match layer:
        case Base():
            if not layer.python and not layer.add_python:
                reason = f"the base image {layer.tag}"
        case PipInstall() | UvSync():
            pass
        case RunFunction():
            check_python(layer, settings_of(step.below).python)
            reason = "volumes in run_function" if layer.volumes else ""
        case RunCommands():
            for line in layer.commands:
                if not _is_simple(line):
                    reason = f"the shell command {line!r} (only python, pip and uv run here)"
        case _:
            reason = f"{type(layer).__name__} (it needs a file system of its own)"
    if reason:
        raise BuildError(
            f"step {step.number} of {step.of}: the process backend has no file systems of images, so "
            f"it cannot have {reason}. Use --backend bubblewrap or --backend docker."
        )


def _is_simple(line: str) -> bool:
    if _SHELL_SIGNS & set(line):
        return False
    try:
        words = shlex.split(line)
    except ValueError:
        return False
    return bool(words) and words[0] in _PROGRAMS


def _as_program(line: str, binary: str) -> list[str]:
    """pip is uv's: an environment of uv has none of its own."""
    words = shlex.split(line)
    if words[0] in ("pip", "pip3"):
        return [binary, "pip", *words[1:]]
    if words[0] in ("python", "python3") and words[1:3] == ["-m", "pip"]:
        return [binary, "pip", *words[3:]]
    return [binary, *words[1:]] if words[0] == "uv" else words


def _in(python: str, program: str) -> str:
    return python if program in ("python", "python3") else program


def _check_mounts(mounts: tuple[Mount, ...]) -> None:
    for mount in mounts:
        if mount.target != ROOT and not mount.target.startswith(f"{ROOT}/"):
            raise BuildError(
                f"the process backend cannot put {mount.target} at its absolute path; only what lies "
                "below /root is seen. Use --backend bubblewrap or --backend docker."
            )
