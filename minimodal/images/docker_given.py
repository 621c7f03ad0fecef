"""What a build step uses of this machine: mounted where the engine can do that, else copied into the
container for the time of the step, with a uv that is installed there.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import IO, Any

from anyio import to_thread

from minimodal.backends.docker_relay import readable
from minimodal.backends.docker_spec import Bind
from minimodal.protocols import Report

from .docker_commands import CACHE, PLACE, UV, Run
from .docker_step import BuildContainer
from .uv import find_uv

UV_CACHE = {
    "Type": "volume",  # as root in a container we could not write the user's own
    "Source": "minimodal-uv-cache",
    "Target": CACHE,
    "VolumeOptions": {"NoCopy": True},
}
COPIED = "/.minimodal"  # /dev is a tmpfs, into which an engine copies nothing
_LINK = f'mkdir -p {PLACE}; for each in {COPIED}/*; do ln -s "$each" {PLACE}/; done'
# Two steps may do it at once: the directory appears whole, and the second one gives way.
_FETCH = f"""
set -e
kept={CACHE}/$1
if [ ! -x "$kept/bin/uv" ]; then
    python3 -m pip --version >/dev/null 2>&1 || {{
        echo "this image has no pip, and the Docker engine, which runs elsewhere, cannot mount uv" >&2
        exit 1
    }}
    python3 -m pip install --quiet --target "$kept.$$" "$1"
    mv -T "$kept.$$" "$kept" 2>/dev/null || rm -rf "$kept.$$"
fi
mkdir -p {PLACE}
ln -s "$kept/bin/uv" {UV}
"""


class Given:
    """For one step. `binds` lie below PLACE; `uv`: whether it runs that."""

    def __init__(self, binds: Sequence[Bind], *, uv: bool, local: bool) -> None:
        self._binds = binds
        self._uv = uv
        self._local = local

    @property
    def mounts(self) -> list[Mapping[str, Any]]:
        """Of the container."""
        if not self._local:
            return [UV_CACHE]
        binds = [*self._binds, *([Bind(find_uv(), UV)] if self._uv else ())]
        return [UV_CACHE, *(bind.mount() for bind in binds)]

    async def bring(
        self, container: BuildContainer, env: Mapping[str, str], report: Report
    ) -> None:
        """Before the step's commands. Raises StepFailed."""
        if self._local:
            return
        if self._binds:
            with tempfile.TemporaryFile() as packed:  # a directory of wheels may be large
                await to_thread.run_sync(_pack, self._binds, packed)
                await container.put(packed)
            await container.run(Run(["sh", "-c", _LINK], "copy files"), env, report)
        if self._uv:
            fetch = Run(["sh", "-c", _FETCH, "sh", _requirement()], "install uv")
            await container.run(fetch, env, report)

    async def take_away(self, container: BuildContainer, report: Report) -> None:
        """After them: it is no part of the image."""
        if not self._local:
            await container.run(Run(["rm", "-rf", COPIED], "remove files"), {}, report)


def _requirement() -> str:
    """The uv that this machine would mount."""
    try:
        return f"uv=={version('uv')}"
    except PackageNotFoundError:
        return "uv"


def _pack(binds: Sequence[Bind], packed: IO[bytes]) -> None:
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for bind in binds:
            below = bind.target.removeprefix(f"{PLACE}/")
            tar.add(bind.source, f"{COPIED.lstrip('/')}/{below}", filter=readable)
    packed.seek(0)
