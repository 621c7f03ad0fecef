"""The `process` backend's stand-in for /root in a container: a directory of links.

The source snapshot and files added to the image under /root are linked into a directory of the
container's own, so they are found, and what is written beside them stays out of the snapshot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from minimodal.errors import ConflictError
from minimodal.home import Home
from minimodal.types import Mount

from .mounts import ResolvedMount, resolve_mounts

INSIDE = "/root"


def make_root(home: Home, root: Path, mounts: Iterable[Mount]) -> Path:
    """Raises ConflictError for a mount elsewhere than under /root: other backends can have it."""
    root.mkdir()
    for mount in resolve_mounts(home, mounts):
        if mount.target != INSIDE and not mount.target.startswith(INSIDE + "/"):
            if os.path.realpath(mount.source) == os.path.realpath(mount.target):
                continue  # it is there already
            raise ConflictError(_refusal(mount))
        relative = os.path.relpath(mount.target, INSIDE)
        place = root if relative == "." else root / relative
        _open_up(root, place.parent if place != root else root)
        _link(mount.source, place)
    return root


def _link(source: Path, place: Path) -> None:
    if place.is_dir() and not place.is_symlink() and source.is_dir():
        for name in os.listdir(source):
            _link(source / name, place / name)
        return
    if place.is_symlink():
        place.unlink()  # the later mount lies over the earlier one
    place.symlink_to(source)


def _open_up(root: Path, directory: Path) -> None:
    """Make `directory` a real one, with links to what a link in its place showed."""
    for part in (*reversed(directory.relative_to(root).parents), directory.relative_to(root)):
        path = root / part
        if path.is_symlink():
            shown = Path(os.readlink(path))
            path.unlink()
            path.mkdir()
            for name in os.listdir(shown):
                (path / name).symlink_to(shown / name)
        path.mkdir(exist_ok=True)


def _refusal(mount: ResolvedMount) -> str:
    what = "a volume" if mount.kind == "volume" else "files"
    return (
        f"plain processes cannot have {what} at {mount.target}: they see the host's own files. Use "
        "--backend docker or --backend bubblewrap"
    )
