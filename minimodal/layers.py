"""The layers of an image as plain data, and their digests. Pure: what is here never touches a disk.

A layer's digest is the hash of its parent's digest and its own content, so equal prefixes of two
images are one chain of layers, built once. Local files are named by the digest of their bytes, not
by path or time; `LocalFile.source` only says where to read the bytes from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

SCHEME = 2  # part of each digest: raised when builders make something else of the same layers


class LocalFile(NamedTuple):
    """A file of the user's that goes into an image. Equal digest, target and mode: equal file."""

    target: str  # absolute path in the container
    digest: str  # sha256 of the bytes, hex; "" for a file that is mounted, not copied
    source: str  # where the bytes are now; not part of the layer's digest
    mode: int = 0o644


class Base(NamedTuple):
    """Start from a registry image. `python`: the minor version wanted; `add_python`: put it there."""

    tag: str
    python: str | None = None
    add_python: str | None = None
    secret: str | None = None  # id: REGISTRY_USERNAME and REGISTRY_PASSWORD for the pull


class PipInstall(NamedTuple):
    """Install Python packages, by name or from requirement files."""

    packages: tuple[str, ...] = ()
    requirements: tuple[LocalFile, ...] = ()  # installed with -r, in this order
    index_url: str | None = None
    extra_index_url: str | None = None
    find_links: str | None = None
    pre: bool = False
    extra_options: str = ""
    included: tuple[LocalFile, ...] = ()  # what `requirements` name with -r or -c; lie beside them
    env: tuple[tuple[str, str], ...] = ()  # for this step only, like `secrets`
    secrets: tuple[str, ...] = ()


class UvSync(NamedTuple):
    """Install the locked dependencies of a project (not the project itself)."""

    project: tuple[LocalFile, ...]  # pyproject.toml and uv.lock
    groups: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()
    frozen: bool = True
    extra_options: str = ""
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()


class AptInstall(NamedTuple):
    """Install Debian packages."""

    packages: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()


class RunCommands(NamedTuple):
    """Run shell commands."""

    commands: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # secret ids: visible to the step, never in the layer


class CopyFiles(NamedTuple):
    """Put local files into the image."""

    files: tuple[LocalFile, ...]


class SetEnv(NamedTuple):
    """Set environment variables, for later steps and in containers."""

    env: tuple[tuple[str, str], ...]


class Workdir(NamedTuple):
    """Where later steps and containers run."""

    path: str


class Entrypoint(NamedTuple):
    """What starts the command of a container."""

    command: tuple[str, ...]


class Cmd(NamedTuple):
    """The command of a container that is given none."""

    command: tuple[str, ...]


class Shell(NamedTuple):
    """What runs the commands of later steps."""

    command: tuple[str, ...]


class Dockerfile(NamedTuple):
    """Dockerfile instructions on top of the parent, or a whole Dockerfile when it is the first layer."""

    text: str
    context: tuple[LocalFile, ...] = ()  # target: path relative to the context, with a leading /
    build_args: tuple[tuple[str, str], ...] = ()
    add_python: str | None = None
    env: tuple[tuple[str, str], ...] = ()  # for this step only, like `secrets`
    secrets: tuple[str, ...] = ()


class RunFunction(NamedTuple):
    """Run a Python function at build time and keep the files that it leaves.

    By name, as functions travel (`module`, `sources`; the blob is the pickle of (args, kwargs)), or
    by value (`module` empty; the blob is the cloudpickle of (function, args, kwargs)).
    """

    name: str  # qualified name, inside `module` if there is one
    source: str  # digest of source text, referenced globals and arguments: the cache key
    blob: str  # digest of a pickle in Home.blobs
    module: str = ""
    sources: str = ""  # digest of a snapshot in Home.sources
    python: str = ""  # by value: the minor version that pickled it
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    volumes: tuple[tuple[str, str], ...] = ()  # (target, volume id)
    timeout: float = 3600.0


class Snapshot(NamedTuple):
    """What a sandbox left in its files. Made by it, so it cannot be built again."""

    id: str


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
    | Snapshot
)


class ImageSpec(NamedTuple):
    """An image: layers to build, files to mount at start, and whether to ignore the cache.

    `force_from` is the index of the first layer to rebuild whatever the cache has (None: no such).
    `mounts` are add_local_*(copy=False): a file's digest names a blob in Home.blobs, a directory's
    (`S_ISDIR(mode)`) a snapshot in Home.sources. `recipe` is the hash of what the user wrote, without
    contents of files: it is the same where the files are missing, so `imports()` knows its image.
    """

    layers: tuple[Layer, ...]
    mounts: tuple[LocalFile, ...] = ()
    force_from: int | None = None
    recipe: str = ""

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
    import hashlib  # loads a large library: not in a container, which takes no digests

    content = _plain(layer, host_paths=False)
    if isinstance(layer, RunFunction):
        # A cloudpickle's bytes differ from run to run, and the snapshot holds unrelated files too.
        for field in ("blob", "module", "sources", "python"):
            content.pop(field)
    elif isinstance(layer, Base):
        content.pop("secret")  # who may pull it does not change what it is
    text = json.dumps([SCHEME, parent, type(layer).__name__, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any, host_paths: bool = True) -> Any:
    if isinstance(value, (Layer, LocalFile)):
        fields = value._asdict()
        if isinstance(value, LocalFile) and not host_paths:
            del fields["source"]
        return {name: _plain(v, host_paths) for name, v in fields.items()}
    return [_plain(v, host_paths) for v in value] if isinstance(value, tuple) else value


# --- as JSON, for the store and the wire ----------------------------------------------------------


def encode(spec: ImageSpec) -> dict[str, Any]:
    """The spec as JSON-able data that `decode` takes back."""
    return {
        "layers": [{"kind": type(layer).__name__} | _plain(layer) for layer in spec.layers],
        "mounts": [_plain(mount) for mount in spec.mounts],
        "force_from": spec.force_from,
        "recipe": spec.recipe,
    }


def decode(data: Mapping[str, Any]) -> ImageSpec:
    """Raises KeyError or TypeError for what `encode` cannot have made."""
    layers = [
        _KINDS[layer["kind"]](**{k: _frozen(v) for k, v in layer.items() if k != "kind"})
        for layer in data["layers"]
    ]
    mounts = tuple(LocalFile(**mount) for mount in data["mounts"])
    return ImageSpec(tuple(layers), mounts, data["force_from"], data["recipe"])


_KINDS: dict[str, Any] = {kind.__name__: kind for kind in get_args(Layer)}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return LocalFile(**value)
    return tuple(_frozen(v) for v in value) if isinstance(value, (list, tuple)) else value
