"""`python:3.11-slim` without an image registry: made from Debian's packages, imported into the engine.

Owns which Debian release brings which Python, how its tree is made, and the cached archive of it
(`Home.cache/bases`), which makes the next import a matter of seconds.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from anyio import to_thread

from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_requests import DockerFailure
from minimodal.errors import BuildError, InvalidError
from minimodal.home import Home
from minimodal.protocols import Report

from .build import StepFailed, file_lock
from .running import Command, run

RELEASES = {"3.11": "bookworm", "3.13": "trixie"}
PACKAGES = "python3,python3-pip,ca-certificates"
# What a package manager leaves behind, device nodes (the engine makes its own, and a rootless one
# may not unpack any), and Debian's refusal of pip: in a container there is no system to protect.
LEFT_OUT = (
    "./dev/*",
    "./var/cache/apt/*.bin",
    "./var/cache/apt/archives/*.deb",
    "./var/lib/apt/lists/*",
    "./var/log/*.log",
    "./usr/lib/python3*/EXTERNALLY-MANAGED",
)
DOCKERFILE = """\
FROM scratch
ADD {archive} /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
LABEL minimodal.bootstrapped="Debian {release}"
CMD ["python3"]
"""


class Tool(NamedTuple):
    """What makes a Debian tree, and whether it can do so without being root."""

    name: str
    path: str

    def command(self, release: str, tree: str, mirror: str | None) -> list[str]:
        options = ["--variant=minbase", f"--include={PACKAGES}"]
        return [self.path, *options, release, tree, *([mirror] if mirror else [])]


def find_tool(
    which: Callable[[str], str | None] = shutil.which, is_root: bool | None = None
) -> Tool:
    """mmdebstrap if it is there (half the time, and no root needed), else debootstrap as root.

    Raises BuildError that says what to install or who to be.
    """
    fast, usual = which("mmdebstrap"), which("debootstrap")
    if fast:
        return Tool("mmdebstrap", fast)
    if not usual:
        raise BuildError(
            "a base image is made by debootstrap or mmdebstrap, and neither is here. "
            "Install one: `apt-get install mmdebstrap`."
        )
    if not (os.geteuid() == 0 if is_root is None else is_root):
        raise BuildError(
            "debootstrap must be root. Run this command with sudo, or install mmdebstrap, which works "
            "as an ordinary user: `apt-get install mmdebstrap`."
        )
    return Tool("debootstrap", usual)


def release_of(python: str) -> str:
    """Raises InvalidError for a Python that no Debian release has."""
    if python not in RELEASES:
        known = ", ".join(f"{version} ({name})" for version, name in RELEASES.items())
        raise InvalidError(
            f"no Debian release has Python {python}; there are {known}. Another version comes with "
            f"`docker pull python:{python}-slim`, or with Image.from_registry(…, "
            f"add_python={python!r}) on top of one of these."
        )
    return RELEASES[python]


async def bootstrap(
    api: DockerApi,
    home: Home,
    python: str,
    report: Report,
    *,
    mirror: str | None = None,
    force: bool = False,
    detail: Report = lambda line: None,
) -> str:
    """Make the image and give its tag. What the engine or the cache has is used, unless `force`.

    `report` hears of each step, `detail` all that the tools print. Raises BuildError with their tail.
    """
    release, tag = release_of(python), f"python:{python}-slim"
    if not force and await api.image(tag) is not None:
        report(f"the engine has {tag}")
        return tag
    archive = home.cache / "bases" / f"python-{python}-slim.tar.gz"
    async with file_lock(
        archive.with_suffix(".lock"), lambda: report("another engine makes it, waiting")
    ):
        if force or not await to_thread.run_sync(archive.is_file):
            await _make_archive(archive, release, mirror, report, detail)
    report(f"importing {archive}")
    await _import(api, archive, release, tag)
    report(f"made {tag} from Debian {release}")
    return tag


async def _make_archive(
    archive: Path, release: str, mirror: str | None, report: Report, detail: Report
) -> None:
    """Whole or not at all: renamed when it is complete."""
    tool = find_tool()
    with _workplace(archive.parent) as place:
        tree, part = place / "tree", place / archive.name
        report(f"{tool.name} {release}: about a minute")
        pack = ["tar", "-C", str(tree), "--use-compress-program", "gzip -1", "--numeric-owner"]
        pack += [word for pattern in LEFT_OUT for word in ("--exclude", pattern)]
        try:
            await _run(tool.command(release, str(tree), mirror), detail)
            await to_thread.run_sync(_finish_tree, tree)
            await _run([*pack, "-cf", str(part), "."], detail)
        except StepFailed as failure:
            raise BuildError(
                f"{failure.what} failed with exit code {failure.code}\n{failure.tail}", failure.tail
            ) from None
        await to_thread.run_sync(part.rename, archive)


async def _run(argv: list[str], report: Report) -> None:
    await run(Command(argv, os.environ, argv[0], timeout=1800), report)


def _finish_tree(tree: Path) -> None:
    link = tree / "usr/bin/python"
    if not link.is_symlink():
        link.symlink_to("python3")


@contextmanager
def _workplace(parent: Path) -> Iterator[Path]:
    """Removed at the end; beside the archive, because a rename must stay on one file system."""
    parent.mkdir(parents=True, exist_ok=True)
    place = tempfile.mkdtemp(prefix=".making-", dir=parent)
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)


async def _import(api: DockerApi, archive: Path, release: str, tag: str) -> None:
    """By the builder's ADD, which every Docker-compatible engine unpacks."""
    with _workplace(archive.parent) as place:
        context = await to_thread.run_sync(_context, archive, release, place)
        with context:
            try:
                async for _ in api.build(context, dockerfile="Dockerfile", tag=tag, args={}):
                    pass
            except DockerFailure as error:
                raise BuildError(f"the engine could not import {archive}: {error}") from error


def _context(archive: Path, release: str, place: Path) -> IO[bytes]:
    dockerfile = place / "Dockerfile"
    dockerfile.write_text(DOCKERFILE.format(archive=archive.name, release=release))
    packed = open(place / "context.tar", "w+b")  # the caller closes it
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(dockerfile, "Dockerfile")
        tar.add(archive, archive.name)
    packed.seek(0)
    return packed
