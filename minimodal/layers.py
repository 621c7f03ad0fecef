"""The layers of an image as plain data, and their digests. Pure: what is here never touches a disk.

A layer's digest is the hash of its parent's digest and its own content, so equal prefixes of two
images are one chain of layers, built once. Local files are named by the digest of their bytes, not
by path or time; `LocalFile.source` only says where to read the bytes from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the user's that goes into an image. Equal digest, target and mode: equal file."""

    target: str  # absolute path in the container
    digest: str  # sha256 of the bytes, hex; "" for a file that is mounted, not copied
    source: str  # where the bytes are now; not part of the layer's digest
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Base:
    """Start from a registry image. `python`: the minor version wanted; `add_python`: put it there."""

    tag: str
    python: str | None = None
    add_python: str | None = None


@dataclass(frozen=True, slots=True)
class PipInstall:
    packages: tuple[str, ...] = ()
    requirements: tuple[LocalFile, ...] = ()  # installed with -r, in this order
    index_url: str | None = None
    extra_index_url: str | None = None
    find_links: str | None = None
    pre: bool = False
    extra_options: str = ""


@dataclass(frozen=True, slots=True)
class UvSync:
    """Install the locked dependencies of a project (not the project itself)."""

    project: tuple[LocalFile, ...]  # pyproject.toml and uv.lock
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    frozen: bool = True


@dataclass(frozen=True, slots=True)
class AptInstall:
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunCommands:
    commands: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # secret ids: visible to the step, never in the layer


@dataclass(frozen=True, slots=True)
class CopyFiles:
    files: tuple[LocalFile, ...]


@dataclass(frozen=True, slots=True)
class SetEnv:
    env: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Workdir:
    path: str


@dataclass(frozen=True, slots=True)
class Entrypoint:
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cmd:
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shell:
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """Dockerfile instructions on top of the parent, or a whole Dockerfile when it is the first layer."""

    text: str
    context: tuple[LocalFile, ...] = ()  # target: path relative to the context, with a leading /
    build_args: tuple[tuple[str, str], ...] = ()
    add_python: str | None = None


@dataclass(frozen=True, slots=True)
class RunFunction:
    """Run a pickled Python function at build time and keep the files that it leaves."""

    name: str
    source: str  # source text and referenced globals: the cache key
    blob: str  # digest of the cloudpickle of (function, args, kwargs) in Home.blobs
    secrets: tuple[str, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()  # (target, volume id)
    timeout: float = 3600.0


Layer = (
    Base
    | PipInstall
    | UvSync
    | AptInstall
    | RunCommands
    | CopyFiles
    | SetEnv
    | Workdir
    | Entrypoint
    | Cmd
    | Shell
    | Dockerfile
    | RunFunction
)


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """An image: layers to build, files to mount at start, and whether to ignore the cache.

    `force_from` is the index of the first layer to rebuild whatever the cache has (None: no such).
    """

    layers: tuple[Layer, ...]
    mounts: tuple[LocalFile, ...] = ()  # add_local_*(copy=False): target and source only
    force_from: int | None = None

    def digests(self) -> tuple[str, ...]:
        """One digest for each layer; the last one names the image."""
        chain: list[str] = []
        parent = ""
        for layer in self.layers:
            parent = layer_digest(parent, layer)
            chain.append(parent)
        return tuple(chain)

    @property
    def digest(self) -> str:
        return self.digests()[-1]


def layer_digest(parent: str, layer: Layer) -> str:
    """sha256 of the parent's digest, the layer's kind and its content; host paths left out."""
    content = _without_host_paths(asdict(layer))
    if isinstance(layer, RunFunction):
        content.pop("blob")  # a cloudpickle's bytes differ from run to run; `source` is the key
    text = json.dumps([parent, type(layer).__name__, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_host_paths(value: Any) -> Any:
    if isinstance(value, dict):
        is_file = value.keys() == {"target", "digest", "source", "mode"}
        return {
            k: _without_host_paths(v) for k, v in value.items() if not (is_file and k == "source")
        }
    if isinstance(value, (list, tuple)):
        return [_without_host_paths(v) for v in value]
    return value
