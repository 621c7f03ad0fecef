"""Images that need no build on a backend that shares the host's files: a Python and settings."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from minimodal.errors import BuildError
from minimodal.home import Home
from minimodal.layers import Base, Cmd, Entrypoint, ImageSpec, SetEnv, Shell, Workdir
from minimodal.types import ImageRef, Mount

from . import base_layer
from .host_python import find_python


def host_image(home: Home, image: ImageSpec) -> ImageRef:
    """For bubblewrap: the base layer alone. Raises BuildError for what would need a build."""
    settings = read_settings(image)
    python = find_python(settings.python)
    layer = base_layer.base_layer(home, python.path, python.minor)
    env = {"PATH": base_layer.PATH, "VIRTUAL_ENV": base_layer.ENVIRONMENT}
    return settings.reference(image, layer.digest, base_layer.PYTHON, env)


def environment_image(home: Home, image: ImageSpec) -> ImageRef:
    """For plain processes: an empty environment under the home. Raises BuildError likewise."""
    settings = read_settings(image)
    python = find_python(settings.python)
    key = hashlib.sha256(f"{python.path}\0{os.stat(python.path).st_mtime_ns}".encode()).hexdigest()
    directory = home.cache / "environments" / key[:24]
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
        try:
            base_layer.write_environment(draft / "venv", python.path, python.minor)
            (draft / "venv").rename(directory)
        except OSError:
            if not directory.is_dir():
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    path = os.environ.get("PATH", os.defpath)
    env = {"PATH": f"{directory / 'bin'}{os.pathsep}{path}", "VIRTUAL_ENV": str(directory)}
    return settings.reference(image, directory.name, str(directory / "bin" / "python"), env)


@dataclass(slots=True)
class Settings:
    """What an image's layers say without a build."""

    python: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    workdir: str | None = None
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()

    def reference(self, image: ImageSpec, name: str, python: str, env: dict[str, str]) -> ImageRef:
        return ImageRef(
            digest=image.digest,
            name=name,
            python=python,
            env=tuple({**env, **self.env}.items()),
            workdir=self.workdir,
            mounts=tuple(Mount("local", file.source, file.target) for file in image.mounts),
            entrypoint=self.entrypoint,
            cmd=self.cmd,
        )


def read_settings(image: ImageSpec) -> Settings:
    """Raises BuildError for a layer that needs a build."""
    found = Settings()
    for layer in image.layers:
        match layer:
            case Base():
                found.python = layer.add_python or layer.python
            case SetEnv():
                found.env.update(layer.env)
            case Workdir():
                found.workdir = layer.path
            case Entrypoint():
                found.entrypoint = layer.command
            case Cmd():
                found.cmd = layer.command
            case Shell():
                pass
            case _:
                raise BuildError(f"{type(layer).__name__} layers cannot be built here yet")
    return found
