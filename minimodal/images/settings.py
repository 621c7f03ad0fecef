"""What an image sets besides files: environment, working directory, shell, command. Pure."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from minimodal.layers import (
    Base,
    Cmd,
    Dockerfile,
    Entrypoint,
    ImageSpec,
    Layer,
    SetEnv,
    Shell,
    Workdir,
)
from minimodal.types import ImageRef, Mount

_REFERENCE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")

RECIPE_VARIABLE = "MINIMODAL_IMAGE_RECIPE"  # read by Image.imports


@dataclass(frozen=True, slots=True)
class Settings:
    """The sum of the settings of some layers."""

    python: str | None = None  # minor version, of the base
    env: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ("/bin/sh", "-c")


def settings_of(layers: Iterable[Layer]) -> Settings:
    """Later layers win; a relative working directory is below the one before."""
    python: str | None = None
    env: dict[str, str] = {}
    workdir: str | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    for layer in layers:
        match layer:
            case Base():
                python = layer.add_python or layer.python
            case SetEnv():
                env = over(env, dict(layer.env))
            case Dockerfile():  # its image has what was set before it, or what it set instead
                env = {}
            case Workdir():
                workdir = _joined(workdir, layer.path)
            case Entrypoint():
                entrypoint = layer.command
            case Cmd():
                cmd = layer.command
            case Shell():
                shell = layer.command
            case _:
                pass
    return Settings(python, env, workdir, entrypoint, cmd, shell)


def over(below: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """`env` over `below`; its $NAME and ${NAME} are the values there, as in a Dockerfile's ENV.

    A name that is not there stays as it is: a base that is still to be seen may have it.
    """

    def value(reference: re.Match[str]) -> str:
        return below.get(reference[1] or reference[2], reference[0])

    return {**below, **{name: _REFERENCE.sub(value, text) for name, text in env.items()}}


def mounts_of(spec: ImageSpec) -> tuple[Mount, ...]:
    """add_local_*(copy=False): by content where it was kept in the home, else the user's own path."""
    mounts = []
    for file in spec.mounts:
        if not file.digest:
            mounts.append(Mount("local", file.source, file.target))
        else:
            kind = "sources" if stat.S_ISDIR(file.mode) else "file"
            mounts.append(Mount(kind, file.digest, file.target))
    return tuple(mounts)


def image_ref(
    spec: ImageSpec, name: str, python: str, env: Iterable[tuple[str, str]] = ()
) -> ImageRef:
    """The reference to a built image. `env` is the backend's own and gives way to the user's."""
    settings = settings_of(spec.layers)
    merged = {**over(dict(env), settings.env), RECIPE_VARIABLE: spec.recipe}
    return ImageRef(
        digest=spec.digest,
        name=name,
        python=python,
        env=tuple(merged.items()),
        workdir=settings.workdir,
        mounts=mounts_of(spec),
        entrypoint=settings.entrypoint,
        cmd=settings.cmd,
    )


def _joined(workdir: str | None, path: str) -> str:
    return path if path.startswith("/") else f"{(workdir or '').rstrip('/')}/{path}"
