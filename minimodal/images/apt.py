"""`apt_install` over the host's own Debian: apt-get in the sandbox, or packages only unpacked.

dpkg gives files to many users, so it needs a namespace with many ids, which only root can make. Where
there is one id, the packages are downloaded by apt and unpacked; their maintainer scripts do not run.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from minimodal.home import Home
from minimodal.layers import AptInstall

from .build import StepFailed
from .build_sandbox import BUILD, BuildIdentity
from .sandbox_steps import Run

LISTS, ARCHIVES = "/var/lib/apt/lists", "/var/cache/apt/archives"
_FRESH = 6 * 3600.0  # package lists younger than this are not fetched again unless they fail
UNPACKED = f"{BUILD}/unpacked"

_OPTIONS = (
    "-o APT::Sandbox::User=root -o Acquire::Retries=2 -o Dpkg::Use-Pty=0 -q"
    " -o Dpkg::Options::=--force-unsafe-io"  # the layer is thrown away unless all went well
    " -o APT::Keep-Downloaded-Packages=true -o Binary::apt-get::APT::Keep-Downloaded-Packages=true"
)
_INSTALL = f"""
update() {{ apt-get {_OPTIONS} update; }}
install() {{ apt-get {_OPTIONS} install -y --no-install-recommends "$@"; }}
if [ -z "$FRESH" ]; then update && install "$@"; else install "$@" || {{ update && install "$@"; }}; fi
"""
# Into a directory of ours; dpkg's own state is only read. Locks lie in places that are not writable.
_UNPACK = f"""
set -e
O="{_OPTIONS} -o Debug::NoLocking=1 -o Dir::State::lists={BUILD}/apt/lists"
O="$O -o Dir::Cache::archives={BUILD}/apt/archives -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache="
[ -n "$FRESH" ] || apt-get $O update
rm -f {BUILD}/apt/archives/*.deb
apt-get $O install -y --no-install-recommends --download-only "$@"
for package in {BUILD}/apt/archives/*.deb; do
  [ -e "$package" ] || continue
  echo "unpacking $(basename "$package") (its maintainer scripts do not run)"
  dpkg-deb --fsys-tarfile "$package" | tar -x --no-same-owner --keep-directory-symlink -C {UNPACKED}
done
"""


def command(layer: AptInstall, identity: BuildIdentity, home: Home) -> Run:
    """Raises StepFailed that says what this machine lacks."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program, path="/usr/bin:/bin") is None:
            raise StepFailed(
                f"apt_install needs {program}, and this machine has none ({_system()}). Use "
                "--backend docker, or put the files into the image with add_local_dir(copy=True)."
            )
    script = _INSTALL if identity.many_ids else _UNPACK
    fresh = "FRESH=1; " if _is_fresh(home) else "FRESH=; "
    shown = f"apt-get install {' '.join(layer.packages)}"
    return Run(("/bin/sh", "-c", fresh + script, "sh", *layer.packages), shown)


def binds(home: Home, identity: BuildIdentity) -> list[tuple[str, str, bool]]:
    """apt's lists and downloads are shared by all builds and are in no layer."""
    caches = _caches(home)
    for cache in caches:
        for directory in (cache, cache / "partial"):
            directory.mkdir(parents=True, exist_ok=True)
            identity.give(directory)
    inside = (LISTS, ARCHIVES)
    if not identity.many_ids:
        inside = (f"{BUILD}/apt/lists", f"{BUILD}/apt/archives")
    return [(str(cache), place, True) for cache, place in zip(caches, inside, strict=True)]


def environment() -> dict[str, str]:
    return {"DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true"}


def merge(unpacked: Path, files: Path) -> None:
    """Move what was unpacked into the layer; /lib and the like are links into /usr on the host."""
    for directory, names, found in os.walk(unpacked):
        relative = os.path.relpath(directory, unpacked)
        inside = os.path.realpath(os.path.join("/", relative))  # through the host's own links
        target = files / inside.lstrip("/")
        target.mkdir(parents=True, exist_ok=True)
        links = [name for name in names if os.path.islink(os.path.join(directory, name))]
        for name in found + links:
            place = target / name
            if place.is_symlink() or place.is_file():
                place.unlink()
            if not place.is_dir():
                os.rename(os.path.join(directory, name), place)


def _is_fresh(home: Home) -> bool:
    lists = _caches(home)[0]
    if not lists.is_dir():
        return False
    packages = [entry for entry in lists.iterdir() if entry.name.endswith(("Packages", "Release"))]
    return bool(packages) and time.time() - lists.stat().st_mtime < _FRESH


def _caches(home: Home) -> Sequence[Path]:
    root = home.cache / "apt"
    return (root / "lists", root / "archives")


def _system() -> str:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "an unknown system"
    named = dict(line.split("=", 1) for line in lines if "=" in line)
    return named.get("PRETTY_NAME", "an unknown system").strip('"')
