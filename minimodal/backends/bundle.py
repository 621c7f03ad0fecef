"""What a container needs of ours: the packages `minimodal` and `cloudpickle`, and how to start them.

Owns a copy of the two under the home: compiled, because a container cannot write bytecode beside
read-only sources (measured: 200 ms for each start without), and whole, whatever an installer does
to the originals meanwhile. Nothing else of the engine's environment is visible to user code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from minimodal import bytecode
from minimodal.errors import RuntimeUnavailable
from minimodal.home import Home

TARGET = "/opt/minimodal"  # in docker and bubblewrap
SOCKET_DIRECTORY = "/run/minimodal"
SOCKET = f"{SOCKET_DIRECTORY}/engine.sock"
NAMES = ("minimodal", "cloudpickle")

_COMPILE = """
import py_compile, sys
for path in sys.argv[1:]:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(path, quiet=2, invalidation_mode=mode)
"""


def packages(directory: Path) -> tuple[tuple[Path, str], ...]:
    """(directory on the host, absolute target in the container) of both packages: mount read-only.

    `directory`: what `bundle` gave, or a copy of it.
    """
    return tuple((directory / name, f"{TARGET}/{name}") for name in NAMES)


def agent_command(
    python: str, socket: str = SOCKET, directory: str | os.PathLike[str] = TARGET
) -> tuple[str, ...]:
    """The command that starts the agent in a directory that holds the two packages."""
    return (python, "-u", f"{os.fspath(directory)}/minimodal/agent/main.py", socket)


def bundle(home: Home) -> Path:
    """The directory that holds the two packages. Made once for each state of their sources."""
    return _bundle(home.cache / "bundles")


@lru_cache(maxsize=8)
def _bundle(parent: Path) -> Path:
    # Once for each process: the engine keeps the code that it started with.
    originals = [_original(name) for name in NAMES]
    files = [(o.name, path) for o in originals for path in _sources(o)]
    directory = parent / _digest(files)
    if directory.is_dir():
        return directory
    parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=parent))
    draft.chmod(0o755)
    try:
        for original in originals:
            for path in _sources(original):
                target = draft / original.name / path.relative_to(original)
                target.parent.mkdir(parents=True, exist_ok=True)
                info = path.stat()
                shutil.copyfile(path, target)
                if runs_in_containers(target.relative_to(draft)):
                    bytecode.write(path, info, target, str(directory / target.relative_to(draft)))
        draft.rename(directory)  # atomic: another engine sees the whole bundle or none
    except OSError:
        if not directory.is_dir():
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return directory


@lru_cache(maxsize=32)
def compile_for(home: Home, python: str) -> None:
    """Add the bytecode of another interpreter of this host. Blocking; once for each version.

    Not an error where it fails: containers are only slower to start.
    """
    if os.path.realpath(python) == os.path.realpath(sys.executable):
        return  # the bundle was made with it
    directory = bundle(home)
    done = directory / f".compiled-{hashlib.sha256(python.encode()).hexdigest()[:16]}"
    if done.exists():
        return
    files = [str(f) for f in _sources(directory) if runs_in_containers(f.relative_to(directory))]
    command = [python, "-I", "-S", "-c", _COMPILE, *files]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    done.touch()


def runs_in_containers(path: Path) -> bool:
    """Rooms 0 and 1: the top level of the package and the agent."""
    return len(path.parts) == 2 or path.parts[:2] == ("minimodal", "agent")


def in_containers(path: str) -> bool:
    """Whether an agent may need what lies at this path of a container."""
    inner = path.removeprefix(f"{TARGET}/minimodal/").split("/")
    ours = path.startswith(f"{TARGET}/minimodal/")
    return not ours or len(inner) == 1 or inner[0] in ("agent", "__pycache__")


def _sources(package: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(package):  # a fifth of what `rglob` takes
        folders[:] = sorted(set(folders) - {"__pycache__"})
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def _digest(files: list[tuple[str, Path]]) -> str:
    """Of names, sizes and times: which is two stats for each file and no reading."""
    found = hashlib.sha256(sys.implementation.cache_tag.encode())
    for package, path in files:
        status = path.stat()
        found.update(f"{package}\0{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return found.hexdigest()[:16]


def _original(name: str) -> Path:
    # Found, not imported: cloudpickle is imported nowhere but in pickling.py.
    spec = importlib.util.find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
        if os.path.isdir(location):
            return Path(location).resolve()
    raise RuntimeUnavailable(
        f"the package {name} is not installed as a directory beside minimodal, so it cannot be "
        f"given to containers. Install it with: pip install {name}"
    )
