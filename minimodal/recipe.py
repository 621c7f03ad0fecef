"""The steps of an `Image` as the user wrote them, and what each resolves to: one layer.

Steps are data; nothing is read before `layer(home)`. `home` is where snapshots and pickles of
`run_function` are kept; without it the layer still has its right digest. The file reading of
requirement files, projects and Dockerfiles is in `recipe_files.py`.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from .errors import InvalidError
from .ignore import Ignore
from .layers import Base, CopyFiles, Layer, LocalFile
from .localfiles import local_file, tree

if TYPE_CHECKING:
    from .home import Home

R = TypeVar("R")


class HasSecretId(Protocol):
    """The seam to `Secret`: equal contents must give an equal id, or the cache never hits."""

    def _secret_id(self) -> str: ...


class Step(Protocol):
    """One step of a recipe."""

    def layer(self, home: Home | None) -> Layer: ...


class Ready(NamedTuple):
    """A layer that needs no file. `secrets` are asked for their ids when the image is resolved."""

    content: Layer
    secrets: tuple[HasSecretId, ...] = ()

    def layer(self, home: Home | None) -> Layer:
        return with_secrets(self.content, self.secrets)


class Fixed(NamedTuple):
    """A mounted file that was read before: one of an image that came from the engine."""

    mount: LocalFile

    def mounts(self, home: Home | None) -> list[LocalFile]:
        return [self.mount]


class Copy(NamedTuple):
    """A local file, or a directory, that lies at `target` (absolute) in the container."""

    local: Path
    target: str
    ignore: Ignore
    directory: bool

    def layer(self, home: Home | None) -> Layer:
        if self.directory:
            return CopyFiles(tree(self.local, self.target, self.ignore))
        # The user named this path: a link is followed here, and only here.
        return CopyFiles((local_file(_resolved(self.local), self.target),))

    def mounts(self, home: Home | None) -> list[LocalFile]:
        return [_mounted(self.local, self.target, self.ignore, home)]


class PythonSource(NamedTuple):
    """Local modules and packages by name, found as `import` finds them, without importing them."""

    modules: tuple[str, ...]
    ignore: Ignore

    def layer(self, home: Home | None) -> Layer:
        files: list[LocalFile] = []
        for path, target in self._places():
            if path.is_dir():
                files += tree(path, target, _without_caches(self.ignore))
            else:
                files.append(local_file(path, target))
        return CopyFiles(tuple(files))

    def mounts(self, home: Home | None) -> list[LocalFile]:
        ignore = _without_caches(self.ignore)
        return [_mounted(path, target, ignore, home) for path, target in self._places()]

    def _places(self) -> list[tuple[Path, str]]:
        return [place for name in self.modules for place in _find_module(name)]


def with_secrets(layer: Layer, secrets: tuple[HasSecretId, ...]) -> Layer:
    if not secrets:
        return layer
    ids = tuple(secret._secret_id() for secret in secrets)
    if isinstance(layer, Base):
        return layer._replace(secret=ids[0])
    return layer._replace(secrets=ids)  # type: ignore[call-arg]  # only layers that have the field


def recipe_key(parts: Iterable[Any]) -> str:
    """A hash of steps that is equal where their files are missing: only a path's last part counts."""
    import hashlib

    return hashlib.sha256(repr([_plain(part) for part in parts]).encode()).hexdigest()


def _plain(value: Any) -> Any:
    fields = getattr(type(value), "_fields", None) or getattr(
        type(value), "__dataclass_fields__", ()
    )
    if fields:  # a record of ours, or a user's argument
        return (type(value).__name__, [(name, _plain(getattr(value, name))) for name in fields])
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return value.name
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Callable):  # type: ignore[arg-type]
        return getattr(value, "__qualname__", type(value).__name__)
    return type(value).__name__  # a Secret: its id may not be known in a container


def _mounted(path: Path, target: str, ignore: Ignore, home: Home | None) -> LocalFile:
    from .sources import keep_blob, keep_tree

    path = _resolved(path)
    if path.is_dir():
        digest = keep_tree(home, path, ignore) if home else ""
        return LocalFile(target, digest, str(path), stat.S_IFDIR | 0o755)
    digest, mode = keep_blob(home, path) if home else ("", 0o644)
    return LocalFile(target, digest, str(path), mode)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"the local file {path} does not exist") from None


def _without_caches(ignore: Ignore) -> Ignore:
    def ignored(path: Path) -> bool:
        return (
            "__pycache__" in path.parts
            or any(p.startswith(".") for p in path.parts)
            or ignore(path)
        )

    return ignored


def _find_module(name: str) -> list[tuple[Path, str]]:
    from importlib.util import find_spec

    try:
        spec = find_spec(name)
    except ImportError:
        spec = None
    except ValueError:  # loaded from a path, without a spec
        spec = None
        if (file := getattr(sys.modules.get(name), "__file__", None)) is not None:
            return [(Path(file), f"/root/{name.replace('.', '/')}.py")]
    if spec is None:
        raise InvalidError(
            f"add_local_python_source: no module named {name!r} can be imported here. Give the "
            "module's import name, not a path; for a path use add_local_dir or add_local_file."
        )
    target = PurePosixPath("/root", *name.split("."))
    if spec.submodule_search_locations:
        return [(Path(place), str(target)) for place in spec.submodule_search_locations]
    if not spec.origin or not spec.origin.endswith(".py"):
        raise InvalidError(f"add_local_python_source: {name!r} is not a Python source module")
    return [(Path(spec.origin), f"{target}.py")]


_METHODS = {
    "Base": "from_registry",
    "PipInstall": "pip_install",
    "UvSync": "uv_sync",
    "AptInstall": "apt_install",
    "RunCommands": "run_commands",
    "RunFunction": "run_function",
    "CopyFiles": "add files:",
    "Workdir": "workdir",
}


def describe(layer: Layer) -> str:
    """The step in words, as build output and errors show it."""
    content: dict[str, Any] = {k: v for k, v in layer._asdict().items() if v}
    kind = _METHODS.get(type(layer).__name__, type(layer).__name__)
    files = content.get("files") or content.get("requirements")
    if files and "packages" not in content:
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return f"{kind} {files[0].target}{more}"
    for field in ("packages", "commands", "tag", "text", "path", "command", "name"):
        if value := content.get(field):
            text = " ".join(value) if isinstance(value, (list, tuple)) else str(value)
            return f"{kind} {text.splitlines()[0][:80]}"
    return kind


def read_step(number: int, of: int, read: Callable[[Home | None], R], home: Home | None) -> R:
    """What a step gives when its local files are read; what goes wrong says which step it was."""
    try:
        return read(home)
    except (OSError, InvalidError) as error:
        raise type(error)(f"step {number} of {of} of the image: {error}") from error
