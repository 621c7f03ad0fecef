"""Overlays over the host's system directories, also where something is mounted inside them.

A user namespace may not overlay a directory that hides mounts of the namespace above it: the kernel
says EINVAL. That is /var with a Docker daemon on the machine, and /etc inside a Docker container. So
such a directory is taken apart: its children are overlaid, as far down as the mounts lie.

Mounts where a container's user may not look anyway (the layers in /var/lib/docker) are left out: they
come and go, and a recursive bind fails when one goes meanwhile.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

Overlay = Callable[[str, Sequence[str]], list[str]]
"""Arguments that overlay a path with these directories, lowest first (the host's may be among them)."""


def mount_points() -> tuple[str, ...]:
    """Everything that is mounted in this process's namespace."""
    with open("/proc/self/mountinfo") as file:
        return tuple(_unescaped(line.split()[4]) for line in file)


def has_mounts_below(path: str, mounts: Sequence[str]) -> bool:
    return any(mount.startswith(f"{path}/") for mount in mounts)


def has_hidden_mounts(path: str, mounts: Sequence[str]) -> bool:
    """Whether something is mounted below in a directory that is not for everybody."""
    return any(
        is_hidden(outer)
        for mount in mounts
        if mount.startswith(f"{path}/")
        for outer in _between(path, mount)
    )


def is_hidden(path: str) -> bool:
    """Whether a directory of the host is not for a container: others may not enter it, or /var/tmp."""
    try:
        return path == "/var/tmp" or not os.lstat(path).st_mode & stat.S_IXOTH
    except OSError:
        return True


def _between(path: str, mount: str) -> Iterator[str]:
    while (mount := os.path.dirname(mount)) != path:
        yield mount


def overlays(
    path: str, uppers: Sequence[str], mounts: Sequence[str], overlay: Overlay
) -> Iterator[tuple[str, list[str]]]:
    """(path, arguments) for `path` of the host with `uppers` above it, outer ones first.

    What is mounted inside is seen as it is, read-only, unless an upper has something there.
    """
    lowest = [path] if os.path.isdir(path) and not os.path.islink(path) else []
    if not has_mounts_below(path, mounts):
        yield path, overlay(path, [*lowest, *uppers])
        return
    yield path, ["--dir", path]
    names = {name for directory in (*lowest, *uppers) for name in os.listdir(directory)}
    for name in sorted(names):
        yield from _child(
            f"{path}/{name}", [f"{upper}/{name}" for upper in uppers], mounts, overlay
        )


def _child(
    path: str, uppers: Sequence[str], mounts: Sequence[str], overlay: Overlay
) -> Iterator[tuple[str, list[str]]]:
    present = [upper for upper in uppers if os.path.lexists(upper)]
    top = present[-1] if present else path
    try:
        mode = os.lstat(top).st_mode
    except FileNotFoundError:
        return  # of the host, and removed since it was listed
    if not present and has_mounts_below(path, mounts) and is_hidden(path):
        yield path, ["--dir", path]
    elif stat.S_ISLNK(mode):
        yield path, ["--symlink", os.readlink(top), path]
    elif stat.S_ISDIR(mode) and not (path in mounts and not present):
        yield from overlays(path, present, mounts, overlay)
    elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
        yield path, ["--ro-bind", top, path]
    # What is left is a whiteout, which hides what is below it, or a device or socket: not shown.


def _unescaped(text: str) -> str:
    """mountinfo writes a space as \\040."""
    return re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), text)
