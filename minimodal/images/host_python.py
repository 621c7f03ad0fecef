"""Which interpreters of this host can serve images, for backends that share the host's files."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from minimodal.errors import BuildError


class HostPython(NamedTuple):
    path: str  # without links
    minor: str  # "3.11"


def find_python(minor: str | None) -> HostPython:
    """An interpreter "3.11" of this host; the engine's own version where that is None.

    Found on PATH, in pyenv, and among those that uv manages. Raises BuildError naming what is there.
    """
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = ".".join((minor or own).split(".")[:2])
    if wanted == own:
        # Not a virtual environment's link, but its base.
        return HostPython(os.path.realpath(sys.executable), own)
    for path in _candidates(wanted):
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return HostPython(os.path.realpath(path), wanted)
    raise BuildError(
        f"no Python {wanted} was found on this machine (PATH, pyenv and uv were searched). Install "
        f"it, for instance with `uv python install {wanted}`, or use --backend docker."
    )


def _candidates(minor: str) -> Iterator[str]:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from _newest(pyenv / "versions", f"{minor}.*", f"bin/python{minor}")
    managed = os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local/share/uv/python"
    yield from _newest(Path(managed), f"cpython-{minor}.*", f"bin/python{minor}")
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        # pyenv's shims are scripts that need pyenv itself: no use in a container.
        if directory and not directory.endswith("shims"):
            found = shutil.which(f"python{minor}", path=directory)
            if found:
                yield found


def _newest(root: Path, pattern: str, executable: str) -> Iterator[str]:
    found = sorted(root.glob(pattern), key=lambda p: _numbers(p.name), reverse=True)
    return (str(path / executable) for path in found)


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.replace("-", ".").split(".") if part.isdigit())
