"""From a `types.Mount` to the path on this host that it names. Shared by all backends.

Names come from specs: a name that would leave its directory, or a target that would cover our own
files in the container, is refused here.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from minimodal.errors import InvalidError, LaunchError
from minimodal.home import Home
from minimodal.types import Mount

_MAX_ENTRIES = 256  # a directory of more is mounted as a whole
_OURS = ("/proc", "/dev", "/sys", "/run/minimodal", "/opt/minimodal")


class ResolvedMount(NamedTuple):
    source: Path
    target: str
    read_only: bool
    kind: str


def resolve_mounts(home: Home, mounts: Iterable[Mount]) -> tuple[ResolvedMount, ...]:
    """Outer targets first, so that a mount inside another one is not covered by it.

    Raises InvalidError for a name or target that is not allowed, LaunchError if the source is gone.
    """
    resolved = [
        ResolvedMount(_source(home, m), _target(m.target), m.read_only, m.kind)
        for m in dict.fromkeys(mounts)
    ]
    return tuple(sorted(resolved, key=lambda m: len(PurePosixPath(m.target).parts)))


def spread(mounts: Iterable[ResolvedMount]) -> list[ResolvedMount]:
    """Mounts that hide no more than they must, for a backend that cannot lay one over another.

    A directory of the user's files is mounted entry by entry, so that what the image has beside them
    stays; so is a read-only one in which another mount lies, whose mount point could not be made.
    Of two things at one path the later one is seen; directories are merged.
    """
    stacks: dict[str, list[ResolvedMount]] = {}
    for mount in mounts:
        stacks.setdefault(mount.target, []).append(mount)
    found: list[ResolvedMount] = []
    for stack in stacks.values():
        taken_apart = list(_taken_apart(stack, stacks.keys(), stack[-1].kind == "sources"))
        found += taken_apart if len(taken_apart) <= _MAX_ENTRIES else stack[-1:]
    return found


def _taken_apart(
    stack: Sequence[ResolvedMount], targets: Collection[str], opened: bool
) -> Iterator[ResolvedMount]:
    """What is seen of mounts that lie at one path, the last one on top."""
    top = stack[-1]
    directories = [mount for mount in stack if mount.source.is_dir()]
    holds_others = any(target.startswith(f"{top.target}/") for target in targets)
    apart = opened or holds_others or len(directories) > 1
    if not (apart and top.read_only and top.source.is_dir()):
        yield top
        return
    below: dict[str, list[ResolvedMount]] = {}
    for mount in directories:
        for entry in sorted(os.scandir(mount.source), key=lambda entry: entry.name):
            source, target = Path(entry.path), f"{mount.target}/{entry.name}"
            if entry.is_symlink():  # a container may have made it: it leads to nothing outside
                source = source.resolve()
                if not (source.exists() and source.is_relative_to(mount.source.resolve())):
                    continue
            below.setdefault(target, []).append(mount._replace(source=source, target=target))
    for target, inner in below.items():
        if target not in targets:
            yield from _taken_apart(inner, targets, False)


def _source(home: Home, mount: Mount) -> Path:
    if mount.kind == "local":
        if not os.path.isabs(mount.name):
            raise InvalidError(f"the local path {mount.name!r} of a mount is not absolute")
        path = Path(mount.name)
    else:
        roots = {"sources": home.sources, "volume": home.volumes, "file": home.blobs}
        if mount.kind not in roots:
            raise InvalidError(f"unknown kind of mount {mount.kind!r} at {mount.target}")
        parts = PurePosixPath(mount.name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in mount.name:
            raise InvalidError(f"{mount.name!r} is not the name of a {mount.kind} mount")
        if mount.kind == "volume" and parts[0] != ".views":
            raise LaunchError(
                f"the volume at {mount.target} has no working copy: it can be mounted in a function's "
                "container, and not in the build of an image"
            )
        path = roots[mount.kind].joinpath(*parts)
    if not path.exists():
        raise LaunchError(f"{path}, to be mounted at {mount.target}, does not exist any more")
    return path


def _target(target: str) -> str:
    if not target.startswith("/") or "\0" in target:
        raise InvalidError(f"the mount target {target!r} is not an absolute path")
    normal = os.path.normpath("/" + target.lstrip("/"))
    if normal == "/" or any(normal == p or normal.startswith(p + "/") for p in _OURS):
        raise InvalidError(f"nothing can be mounted at {target}; choose another directory")
    return normal
