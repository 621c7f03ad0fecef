"""Images that need no build on a backend that shares the host's files: a Python and settings."""

from __future__ import annotations

from minimodal.errors import BuildError
from minimodal.home import Home
from minimodal.layers import Base, Cmd, Entrypoint, ImageSpec, SetEnv, Shell, Workdir
from minimodal.types import ImageRef, Mount

from . import base_layer
from .host_python import find_python


def host_image(home: Home, image: ImageSpec) -> ImageRef:
    """Raises BuildError for a layer that would need a build, or a Python that is not here."""
    python: str | None = None
    env = {"PATH": base_layer.PATH, "VIRTUAL_ENV": base_layer.ENVIRONMENT}
    workdir: str | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    for layer in image.layers:
        match layer:
            case Base():
                python = layer.add_python or layer.python
            case SetEnv():
                env.update(layer.env)
            case Workdir():
                workdir = layer.path
            case Entrypoint():
                entrypoint = layer.command
            case Cmd():
                cmd = layer.command
            case Shell():
                pass
            case _:
                raise BuildError(f"{type(layer).__name__} layers cannot be built here yet")
    mounts = tuple(Mount("local", file.source, file.target) for file in image.mounts)
    found = find_python(python)
    return ImageRef(
        digest=image.digest,
        name=base_layer.base_layer(home, found.path, found.minor).digest,
        python=base_layer.PYTHON,
        env=tuple(env.items()),
        workdir=workdir,
        mounts=mounts,
        entrypoint=entrypoint,
        cmd=cmd,
    )
