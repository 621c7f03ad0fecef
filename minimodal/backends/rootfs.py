"""The root file system of a bubblewrap sandbox, as arguments of bwrap.

The host's system directories are the lowest layer, one by one (an upper directory may not lie
inside the lower one, so `/` as a whole cannot be overlaid); the image's layers are stacked above.
Everything of the host is read-only; /tmp, /root, /home, /var/tmp and /run are the sandbox's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from minimodal.images.layer_store import StoredLayer

from .host_tree import has_hidden_mounts, has_mounts_below, mount_points, overlays
from .mounts import ResolvedMount

SYSTEM = ("usr", "etc", "opt", "var", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "nix")
PRIVATE = {"tmp": "1777", "root": "0755", "home": "0755", "run": "0755"}
# Present in every sandbox, whatever a layer has there.
RESERVED = ("proc", "dev", "sys", "run", "tmp")


class RootFiles(NamedTuple):
    """What a sandbox's files are made of. `upper` is for builds: what is written lands in it."""

    layers: Sequence[StoredLayer] = ()  # lowest first
    binds: Sequence[tuple[Path, str]] = ()  # ours: read-only
    mounts: Sequence[ResolvedMount] = ()
    prefixes: Sequence[str] = ()  # interpreters outside the system directories, at the same path


def arguments(files: RootFiles) -> list[str]:
    """In order: later mounts lie over earlier ones."""
    args: list[str] = []
    for name, mode in PRIVATE.items():
        args += ["--perms", mode, "--dir", f"/{name}"]
    tops = {layer.digest: set(layer.top_directories()) for layer in files.layers}
    names = dict.fromkeys(SYSTEM)  # ordered
    for layer in files.layers:
        names.update(dict.fromkeys(sorted(tops[layer.digest] - set(RESERVED))))
    places = _places(files)
    mounted = {place.target.split("/")[1] for place in places}
    taken = mount_points()
    for name in names:
        uppers = [str(layer.files / name) for layer in files.layers if name in tops[layer.digest]]
        path = f"/{name}"
        wanted = uppers or name in mounted or has_hidden_mounts(path, taken)
        if wanted and name in SYSTEM and has_mounts_below(path, taken):
            args += _taken_apart(path, uppers, taken)
        else:
            args += _top(name, uppers, mounted=name in mounted)
    if _is_directory("/var/tmp"):
        args += ["--perms", "1777", "--tmpfs", "/var/tmp"]
    args += ["--proc", "/proc", "--dev", "/dev", "--ro-bind", "/proc/sys", "/proc/sys"]
    args += _resolver()
    for index, place in enumerate(places):
        inside = f"{place.target}/"
        holds_others = any(later.target.startswith(inside) for later in places[index:])
        args += _place(place, holds_others, _below(files.layers, place.target))
    for name in SYSTEM:
        whole = _is_directory(f"/{name}") and not has_mounts_below(f"/{name}", taken)
        if name in mounted and whole:
            args += ["--remount-ro", f"/{name}"]  # its mount points are made
    return args


class _Place(NamedTuple):
    """Something of the host that is seen at `target`."""

    source: str
    target: str
    read_only: bool = True
    copied: bool = False  # what is written to it goes to the container's own memory


def _places(files: RootFiles) -> list[_Place]:
    """All that is mounted, outer ones first, so that nothing is covered by what it lies in."""
    places = [_Place(prefix, prefix) for prefix in files.prefixes]
    places += [_Place(str(source), target) for source, target in files.binds]
    places += [
        _Place(str(m.source), m.target, m.read_only, copied=m.kind == "sources")
        for m in files.mounts
    ]
    return sorted(places, key=lambda place: place.target.count("/"))


def _below(layers: Sequence[StoredLayer], target: str) -> list[str]:
    """What the image's layers have at a path, lowest first."""
    found = [f"{layer.files}{target}" for layer in layers]
    return [path for path in found if _is_directory(path)]


def _place(place: _Place, holds_others: bool, below: Sequence[str]) -> list[str]:
    """A read-only directory in which mount points are still to be made becomes an overlay.

    The sources lie over what the image has at /root, which a mount would hide.
    """
    if place.copied or (holds_others and place.read_only):
        sources = [*(below if place.copied else ()), place.source]
        words = [word for source in sources for word in ("--overlay-src", source)]
        return [*words, "--tmp-overlay", place.target]
    return ["--ro-bind" if place.read_only else "--bind", place.source, place.target]


def _top(name: str, uppers: Sequence[str], *, mounted: bool) -> list[str]:
    """One directory of the root: the host's own if it is a system directory, and the layers'.

    Where something is mounted below it, its mount point has to be made first: in an overlay whose
    upper directory is memory of the sandbox's own.
    """
    path = f"/{name}"
    system = name in SYSTEM
    if system and os.path.islink(path) and not uppers:
        return ["--symlink", os.readlink(path), path]
    lowest = [path] if system and _is_directory(path) else []
    if not uppers and not mounted:
        return ["--ro-bind", path, path] if lowest else []
    stack = lowest + list(uppers)
    if not stack:
        return []
    if not _is_directory(stack[-1]):  # a file or link at the root of a layer
        if os.path.islink(stack[-1]):
            return ["--symlink", os.readlink(stack[-1]), path]
        return ["--ro-bind", stack[-1], path]
    sources = [word for directory in stack for word in ("--overlay-src", directory)]
    # Directories that only the image has can be written to, and forgotten with the container.
    kind = "--ro-overlay" if lowest and not mounted else "--tmp-overlay"
    return [*sources, kind, path]


def _taken_apart(path: str, uppers: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Where the host has mounted something inside: see host_tree."""

    def overlay(place: str, sources: Sequence[str]) -> list[str]:
        if len(sources) == 1:
            return ["--ro-bind", sources[0], place]
        words = [word for source in sources for word in ("--overlay-src", source)]
        return [*words, "--ro-overlay", place]

    return [word for _, words in overlays(path, uppers, taken, overlay) for word in words]


def _resolver() -> list[str]:
    """/etc/resolv.conf is often a link into /run, which the sandbox does not share."""
    real = os.path.realpath("/etc/resolv.conf")
    if real.startswith("/etc/") or not os.path.isfile(real):
        return []
    return ["--ro-bind", real, real]


def prefixes_of(python: str) -> tuple[str, ...]:
    """What to bind so that an interpreter of the host works inside at its own path.

    Follows the links from `python` and a virtual environment's `home`; nothing for /usr/bin/python3.
    """
    found: list[str] = []
    seen: set[str] = set()
    todo = [python]
    while todo:
        path = todo.pop()
        if path in seen or not os.path.lexists(path):
            continue
        seen.add(path)
        prefix = os.path.dirname(os.path.dirname(path))
        if prefix not in found and not _shared(prefix):
            found.append(prefix)
        config = Path(prefix) / "pyvenv.cfg"
        if config.is_file():
            todo += [os.path.join(home, "python3") for home in _venv_homes(config)]
        if os.path.islink(path):
            target = os.path.join(os.path.dirname(path), os.readlink(path))
            todo.append(os.path.normpath(target))
    return tuple(sorted(found, key=len))


def _venv_homes(config: Path) -> Iterable[str]:
    for line in config.read_text(errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            yield value.strip()


def _shared(path: str) -> bool:
    parts = path.split("/")
    return path in ("", "/") or (len(parts) > 1 and parts[1] in SYSTEM)


def _is_directory(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)
