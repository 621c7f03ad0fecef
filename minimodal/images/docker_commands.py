"""What a layer runs inside its build container: commands as data. Pure.

Paths under /dev/minimodal are mounts of the build. /dev is a tmpfs, so their mount points are in no
layer.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from minimodal.layers import AptInstall, PipInstall, RunCommands, RunFunction, UvSync

from . import uv

PLACE = "/dev/minimodal"
UV = f"{PLACE}/uv"
CACHE = f"{PLACE}/cache"
STAGED = f"{PLACE}/staged"
BLOB = f"{PLACE}/blob"
SOURCES = f"{PLACE}/sources"
BUNDLE = f"{PLACE}/bundle"
PYTHON = "python3"
PYTHONS = "/opt/python"  # where add_python puts an interpreter
LOCKED = "/dev/minimodal-locked.txt"
_FOUND = "@python@"
_MISSING = (
    f"echo 'this image has no {PYTHON}: from_registry(…, add_python=…) adds one' >&2; exit 127"
)

ENV: Mapping[str, str] = {
    "HOME": "/tmp",  # that of running containers: what a step caches there is found again
    "LANG": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
    "UV_CACHE_DIR": CACHE,
    "UV_LINK_MODE": "copy",  # the cache is another file system
    "UV_BREAK_SYSTEM_PACKAGES": "1",  # the container is the environment
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "PIP_NO_CACHE_DIR": "1",
}

# Everybody may write what a function of the build left: containers do not run as root.
IN_DIRECTORY = '[ -d "$1" ] || mkdir -p -m 777 "$1"; cd "$1" && shift && exec "$@"'
OPEN_TO_ALL = ("sh", "-c", 'umask 0; exec "$@"', "sh")


@dataclass(frozen=True, slots=True)
class Run:
    """One process of a step. `shown` is how errors name it."""

    argv: Sequence[str]
    shown: str
    env: Mapping[str, str] = field(default_factory=dict)


def pip_install(layer: PipInstall) -> list[Run]:
    command = [*uv.pip_install(UV, layer, _FOUND, STAGED), uv.COMPILED]
    return [Run(_with_python(command), uv.shown(layer))]


def uv_sync(layer: UvSync) -> list[Run]:
    """Export, then install: `uv sync` itself insists on a virtual environment."""
    export = [UV, "export", *uv.PLAIN, "--project", STAGED, "--no-emit-project", "-q", "-o", LOCKED]
    export += ["--frozen"] if layer.frozen else []
    for option, values in (("--group", layer.groups), ("--extra", layer.extras)):
        export += [word for value in values for word in (option, value)]
    install = [
        UV,
        "pip",
        "install",
        *uv.PLAIN,
        "--python",
        _FOUND,
        "--no-deps",
        "-r",
        LOCKED,
        uv.COMPILED,
    ]
    return [
        Run(_with_python([*export, *shlex.split(layer.extra_options)]), "uv export"),
        Run(_with_python(install), "uv sync"),
    ]


def _with_python(command: Sequence[str]) -> list[str]:
    """The image's own `python3` by its path, so that uv takes a virtual environment as one."""
    words = shlex.join(command).replace(_FOUND, '"$python"')
    return ["sh", "-c", f"python=$(command -v {PYTHON}) || {{ {_MISSING}; }}; exec {words}"]


def apt_install(layer: AptInstall) -> list[Run]:
    packages = " ".join(layer.packages)
    install = ["apt-get", "install", "-y", "--no-install-recommends", "--", *layer.packages]
    return [
        Run(["apt-get", "update"], "apt-get update"),
        Run(install, f"apt-get install {packages}"),
        Run(["sh", "-c", "apt-get clean; rm -rf /var/lib/apt/lists/*"], "apt-get clean"),
    ]


def run_commands(layer: RunCommands, shell: Sequence[str], workdir: str | None) -> list[Run]:
    start = ("sh", "-c", IN_DIRECTORY, "sh", workdir or "/")
    return [Run([*start, *shell, line], line) for line in layer.commands]


def run_function(layer: RunFunction, command: Sequence[str]) -> list[Run]:
    return [Run([*OPEN_TO_ALL, *command], f"run_function({layer.name})")]


_COMPILE_LIBRARY = """
import compileall, importlib.util, json, os, re, sys
if not os.path.exists(importlib.util.cache_from_source(json.__file__)):
    left_out = re.compile("/(test|tests|idlelib|lib2to3|turtledemo|ensurepip|[a-z]+-packages)/")
    compileall.compile_dir(os.path.dirname(os.__file__), quiet=2, rx=left_out, workers=0)
"""


def compile_library() -> Run:
    """The bytecode of the standard library, which official Python images lack: containers cannot
    keep theirs, and each start would take 0.2 s longer."""
    find = 'command -v python3 >/dev/null || exit 0; exec python3 -I -S -B -c "$1"'
    return Run(["sh", "-c", find, "sh", _COMPILE_LIBRARY], "compile the standard library")


def add_python(version: str) -> list[Run]:
    """A standalone interpreter beside whatever the image has; first on the usual PATH."""
    env = {
        "UV_PYTHON_INSTALL_DIR": PYTHONS,
        "UV_PYTHON_PREFERENCE": "only-managed",
        "UV_COMPILE_BYTECODE": "1",  # of the standard library: containers cannot keep theirs
    }
    install = [UV, "python", "install", *uv.PLAIN, "--no-bin", version]
    link = (
        f"found=$({UV} python find {version}) && mkdir -p /usr/local/bin && "
        'for name in python python3; do ln -sf "$found" /usr/local/bin/$name; done'
    )
    return [
        Run(install, f"uv python install {version}", env=env),
        Run(["sh", "-c", link], "uv python find", env=env),
    ]
