"""What each kind of layer runs in the build sandbox: commands, and the files that are staged for them.

Pure but for staging. `Inside` are the places where the sandbox sees what is ours.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from minimodal.layers import (
    CopyFiles,
    Layer,
    PipInstall,
    RunCommands,
    RunFunction,
    UvSync,
    Workdir,
)

from . import uv
from .base_layer import ENVIRONMENT, PYTHON
from .build import StepFailed
from .build_function import run_function_command
from .build_sandbox import BUILD
from .settings import Settings
from .staging import place

UV = f"{BUILD}/uv"
UV_CACHE = f"{BUILD}/uv-cache"
STAGED = f"{BUILD}/staged"
BIN = f"{BUILD}/bin"
SHIMS = f"{BUILD}/modules"
SOURCES = f"{BUILD}/sources"
BLOB = f"{BUILD}/function"
BUNDLE = f"{BUILD}/bundle"
HOME_INSIDE = "/root"
PATH = f"{BIN}:{ENVIRONMENT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Into a tree in which directories may be links (/bin is /usr/bin): paths are followed as `cp` would.
_COPY = """
import os, shutil, sys
for directory, names, files in os.walk(sys.argv[1]):
    target = os.path.join("/", os.path.relpath(directory, sys.argv[1]))
    os.makedirs(target, mode=0o755, exist_ok=True)
    links = [name for name in names if os.path.islink(os.path.join(directory, name))]
    for name in files + links:
        place = os.path.join(target, name)
        if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
            os.unlink(place)
        shutil.copy2(os.path.join(directory, name), place, follow_symlinks=False)
"""


class Run(NamedTuple):
    """One command; `shown` is how an error names it, `timeout` None the usual one."""

    argv: tuple[str, ...]
    shown: str
    timeout: float | None = None


def commands_of(layer: Layer, settings: Settings, staged: Path) -> list[Run]:
    """The commands of a layer, after its files were placed in `staged`. Blocking.

    AptInstall and Dockerfile have modules of their own.
    """
    match layer:
        case PipInstall():
            place((*layer.requirements, *layer.included), staged)
            argv = (*uv.pip_install(UV, layer, PYTHON, STAGED), uv.COMPILED)
            return [Run(argv, uv.shown(layer))]
        case UvSync():
            place(layer.project, staged)
            return [Run((*uv.sync(UV, layer, PYTHON, STAGED), uv.COMPILED), "uv sync")]
        case RunCommands():
            return [Run(in_workdir(settings, line), line) for line in layer.commands]
        case CopyFiles():
            place(layer.files, staged)
            return [Run((PYTHON, "-I", "-S", "-c", _COPY, STAGED), "copying files")]
        case Workdir():
            where = settings.workdir or "/"
            return [Run(("mkdir", "-p", where), f"mkdir {where}")]
        case RunFunction():
            argv = tuple(run_function_command(layer, PYTHON, f"{SOURCES}:{BUNDLE}", BLOB))
            return [Run(argv, f"run_function({layer.name})", layer.timeout)]
        case _:
            raise StepFailed(f"{type(layer).__name__} layers need --backend docker")


def in_workdir(settings: Settings, line: str) -> tuple[str, ...]:
    """A shell command in the image's shell and working directory."""
    where = shlex.quote(settings.workdir or HOME_INSIDE)
    enter = f'mkdir -p {where} && cd {where} && exec "$@"'
    return ("/bin/sh", "-c", enter, "sh", *settings.shell, line)


def write_shims(directory: Path) -> None:
    """`pip`, `python -m pip` and `uv` for users' commands: the environment itself has no pip."""
    (directory / "bin").mkdir(parents=True)
    (directory / "modules" / "pip").mkdir(parents=True)
    version = f'[ "$1" = --version ] || [ "$1" = -V ] && exec {UV} --version\n'
    for name, words, more in (("pip", "pip ", version), ("pip3", "pip ", version), ("uv", "", "")):
        script = directory / "bin" / name
        script.write_text(f'#!/bin/sh\n{more}exec {UV} {words}"$@"\n')
        script.chmod(0o755)
    (directory / "modules" / "pip" / "__init__.py").touch()
    (directory / "modules" / "pip" / "__main__.py").write_text(
        f"import os, sys\nos.execv({UV!r}, [{UV!r}, 'pip', *sys.argv[1:]])\n"
    )
