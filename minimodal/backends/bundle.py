"""What a container needs of ours: the packages `minimodal` and `cloudpickle`, and how to start them.

Owns where the two lie on the host and where they are seen in a container. Nothing else of the
engine's environment is visible to user code: no PYTHONPATH, no site-packages.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from minimodal.errors import RuntimeUnavailable
from minimodal.home import Home

TARGET = "/opt/minimodal"  # in docker and bubblewrap
SOCKET_DIRECTORY = "/run/minimodal"
SOCKET = f"{SOCKET_DIRECTORY}/engine.sock"


@cache
def packages() -> tuple[tuple[Path, str], ...]:
    """(directory on the host, absolute target in the container) of both packages: mount read-only."""
    return tuple((_directory(name), f"{TARGET}/{name}") for name in ("minimodal", "cloudpickle"))


def agent_command(
    python: str, socket: str = SOCKET, directory: str | os.PathLike[str] = TARGET
) -> tuple[str, ...]:
    """The command that starts the agent in a directory that holds the two packages."""
    return (python, "-u", f"{os.fspath(directory)}/minimodal/agent/main.py", socket)


def linked_bundle(home: Home) -> Path:
    """A directory of links to the two packages, for backends that cannot mount. Made once.

    Its name is the hash of what it links to, so two installations that share a home do not mix.
    """
    found = [source for source, _ in packages()]
    name = hashlib.sha256("\0".join(map(str, found)).encode()).hexdigest()[:16]
    directory = home.cache / "bundles" / name
    if directory.is_dir():
        return directory
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=directory.parent))
    for source in found:
        (draft / source.name).symlink_to(source)
    try:
        draft.rename(directory)  # atomic: another engine sees the whole bundle or none
    except OSError:
        shutil.rmtree(draft)
        if not directory.is_dir():
            raise
    return directory


def _directory(name: str) -> Path:
    # Found, not imported: cloudpickle is imported nowhere but in pickling.py.
    spec = importlib.util.find_spec(name)
    for location in (spec and spec.submodule_search_locations) or ():
        if os.path.isdir(location):
            return Path(location).resolve()
    raise RuntimeUnavailable(
        f"the package {name} is not installed as a directory beside minimodal, so it cannot be "
        f"given to containers. Install it with: pip install {name}"
    )
