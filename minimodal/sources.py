"""Which of the user's files travel into a container, and the snapshots of them that are mounted there.

`collect` finds the script, or its whole top-level package, and every local module that it imports.
`snapshot` copies the bytes once into `Home.sources/<digest>/`, named by the bytes copied, so what a
container runs is one consistent version however the files change meanwhile. In the container the
snapshot lies at /root.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Set
from functools import partial
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from . import bytecode
from .errors import InvalidError
from .ignore import FilePatternMatcher, Ignore
from .localfiles import copy_settled, readable, settled, stamp, walk

if TYPE_CHECKING:
    from .home import Home

MAX_BYTES = 512 * 1024 * 1024
MAX_MOUNT_BYTES = 8 * 1024 * 1024 * 1024
ROOT = "/root"


class SourceSet(NamedTuple):
    """The files of one script: their path under /root and where they are on the host."""

    module: str  # the name under which the container imports the script
    root: Path
    files: Mapping[str, Path]


def collect(script: str | os.PathLike[str] | ModuleType) -> SourceSet:
    """The files that travel for a script (a path) or a module (one that has a file).

    A path is what `python path` would run: its directory is the import root. A module of a package
    brings its whole top-level package.
    """
    path, name = _located(script)
    depth = name.count(".")
    root = path.parents[depth + (1 if path.name == "__init__.py" else 0)]
    found: dict[str, Path] = {}
    if depth or path.name == "__init__.py":
        _add_package(found, root / name.split(".")[0], name.split(".")[0])
    else:
        found[path.name] = path
    _follow(found, root, {name.split(".")[0]})
    return SourceSet(name, root, dict(sorted(found.items())))


def collect_imported(root: Path) -> SourceSet:
    """The local modules below `root` that `__main__` has imported, and what they import."""
    from .source_imports import imported_by_main

    found: dict[str, Path] = {}
    seen: set[str] = set()
    for top, place in imported_by_main(root, seen):
        _add(found, top, place)
    _follow(found, root, seen)
    return SourceSet("__main__", root, dict(sorted(found.items())))


def _add(found: dict[str, Path], top: str, place: Path) -> None:
    if place.is_dir():
        _add_package(found, place, top)
    else:
        found[place.name] = place.resolve()


def _follow(found: dict[str, Path], root: Path, seen: set[str]) -> None:
    """Add what the files found so far import, and so on."""
    from .source_imports import local_imports

    pending = list(found.items())
    while pending:
        key, file = pending.pop()
        if not key.endswith(".py"):
            continue
        module = key.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        for top, place in local_imports(file, module, root, seen):
            added: dict[str, Path] = {}
            _add(added, top, place)
            pending += added.items()
            found.update(added)


def snapshot(home: Home, sources: SourceSet) -> str:
    """The digest of the snapshot in `Home.sources`; copies only what is not there yet.

    With the bytecode of what this process has loaded: containers are likely to import the same.
    """
    what = f"the sources of {sources.module}"
    return keep_files(home, sources.files.items(), MAX_BYTES, what, partial(_loaded, sources))


def _loaded(sources: SourceSet) -> frozenset[Path]:
    """The files that this process runs as they are; not those that pytest has rewritten."""
    found = {Path(str(getattr(sys.modules["__main__"], "__file__", "")))}
    for module in list(sys.modules.values()):
        spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
        if spec is not None and type(spec.loader) is SourceFileLoader:
            found.add(Path(spec.loader.path))
    return frozenset(found & set(sources.files.values()))


def keep_tree(home: Home, directory: Path, ignore: Ignore) -> str:
    """A snapshot of any directory (add_local_dir)."""
    return keep_files(home, walk(directory, ignore), MAX_MOUNT_BYTES, str(directory))


def keep_blob(home: Home, path: Path) -> tuple[str, int]:
    """A copy of one file in `Home.blobs`: (digest of the bytes copied, mode)."""
    home.blobs.mkdir(parents=True, exist_ok=True)
    temporary = home.blobs / f".tmp-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        digest, mode = copy_settled(path, temporary)
        os.replace(temporary, home.blobs / digest)
    finally:
        temporary.unlink(missing_ok=True)
    return digest, mode


def keep_bytes(home: Home, data: bytes) -> str:
    """Bytes kept in `Home.blobs` under their digest."""
    home.blobs.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(data).hexdigest()
    if not (home.blobs / digest).exists():
        temporary = home.blobs / f".tmp-{os.getpid()}-{os.urandom(6).hex()}"
        temporary.write_bytes(data)
        os.replace(temporary, home.blobs / digest)
    return digest


def keep_files(
    home: Home,
    files: Iterable[tuple[str, Path]],
    limit: int,
    what: str,
    compiled: Callable[[], Set[Path]] = frozenset,
) -> str:
    """Copy files into a directory of `Home.sources` named by their contents; give its digest.

    The copies of those that `compiled` gives get bytecode.
    """
    now, listed = time.time_ns(), sorted(files)
    infos = {name: path.lstat() for name, path in listed}
    _check_size(infos, limit, what)
    index = _index_file(home, listed, infos)
    with contextlib.suppress(OSError):
        known = index.read_text()
        if (home.sources / known).is_dir():
            os.utime(home.sources / known)  # last use, for prune
            return known
    home.sources.mkdir(parents=True, exist_ok=True)
    _sweep(home.sources)
    temporary = home.sources / f".tmp-{os.getpid()}-{os.urandom(6).hex()}"
    temporary.mkdir(mode=0o755)
    try:
        digest = _copy_all(listed, temporary)
        loaded = compiled()
        for name, path in listed:
            if path in loaded:
                bytecode.write(path, infos[name], temporary / name, f"{ROOT}/{name}")
        try:
            temporary.rename(home.sources / digest)
        except OSError:
            if not (home.sources / digest).is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    if all(settled(info, now) for info in infos.values()):
        index.parent.mkdir(exist_ok=True)
        part = index.with_suffix(f".{os.urandom(6).hex()}")
        part.write_text(digest)
        os.replace(part, index)
    return digest


def _copy_all(files: list[tuple[str, Path]], target: Path) -> str:
    """Copy and hash; links are copied as links, what is neither file nor link stays behind."""
    digest = hashlib.sha256()
    made: set[Path] = set()
    for name, source in files:
        place = target / name
        if place.parent not in made:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            made.add(place.parent)
        mode = source.lstat().st_mode
        if stat.S_ISLNK(mode):
            text = os.readlink(source)
            place.symlink_to(text)
            content, kind = hashlib.sha256(os.fsencode(text)).hexdigest(), "link"
        elif stat.S_ISREG(mode):
            content, permissions = copy_settled(source, place)
            kind = oct(permissions)
        else:
            continue
        digest.update(repr((name, kind, content)).encode())
    return digest.hexdigest()


def _index_file(
    home: Home, files: list[tuple[str, Path]], infos: Mapping[str, os.stat_result]
) -> Path:
    """Named by all that would change with any content: sizes, times and inodes, not bytes."""
    key = hashlib.sha256()
    for name, path in files:
        info = infos[name]
        key.update(repr((name, str(path), stamp(info), readable(info.st_mode))).encode())
    return home.sources / ".index" / key.hexdigest()


def _check_size(infos: Mapping[str, os.stat_result], limit: int, what: str) -> None:
    total = sum(info.st_size for info in infos.values())
    if total <= limit:
        return
    largest = sorted(infos, key=lambda name: -infos[name].st_size)[:5]
    listing = ", ".join(f"{name} ({infos[name].st_size / 1e6:.0f} MB)" for name in largest)
    raise InvalidError(
        f"{what}: {total / 1e6:.0f} MB of files, more than the {limit / 1e6:.0f} MB that may travel. "
        f"The largest: {listing}. Move data out of the package into a Volume, or leave it out."
    )


def _sweep(sources: Path) -> None:
    """Remove what a snapshot that was killed has left."""
    for entry in sources.glob(".tmp-*"):
        with contextlib.suppress(OSError, ValueError):
            if not _alive(int(entry.name.split("-")[1])):
                shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# --- finding --------------------------------------------------------------------------------------

EXCLUDED = FilePatternMatcher(
    "**/.*", "**/__pycache__", "**/*.pyc", "**/node_modules", "**/site-packages", "**/*.egg-info"
)


def _add_package(found: dict[str, Path], directory: Path, top: str) -> None:
    """A package with all its files; of a directory without __init__.py only the Python files."""
    regular = (directory / "__init__.py").is_file()
    for name, path in walk(directory, EXCLUDED):
        if name.endswith(".py"):
            if path.is_file():  # a link to a module is followed, as `import` does
                found[f"{top}/{name}"] = path.resolve()
        elif regular and stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFLNK):
            found[f"{top}/{name}"] = path


def _located(script: str | os.PathLike[str] | ModuleType) -> tuple[Path, str]:
    """The file of the script and the name to import it by."""
    if not isinstance(script, ModuleType):
        path = Path(script)
        if not path.is_file():
            raise InvalidError(f"the script {path} does not exist")
        return path.resolve(), _stem(path)
    if not getattr(script, "__file__", None):
        raise InvalidError(
            f"the module {script.__name__} has no file (a notebook or a REPL): its functions travel by "
            "value, with serialized=True"
        )
    path = Path(str(script.__file__)).resolve()
    name = script.__name__
    if name == "__main__":  # `python -m pkg.mod` knows its name, `python x.py` is x
        spec = getattr(script, "__spec__", None)
        name = spec.name if spec else _stem(path)
    own = name.split(".") + (["__init__"] if path.name == "__init__.py" else [])
    matches = list(path.with_suffix("").parts[-len(own) :]) == own
    return (path, name) if matches else (path, _stem(path))


def _stem(path: Path) -> str:
    if "." in path.stem:
        raise InvalidError(
            f"the file name {path.name} has a dot too many: Python cannot import it as a module. "
            f"Rename it, for example to {path.stem.replace('.', '_')}.py"
        )
    return path.stem
