"""What bwrap is told for one container: pure, from a spec and what the backend knows.

The arguments travel through a memfd and not on the command line: no limit on their length, and
nothing of the container's environment in the process list.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from minimodal.errors import InvalidError
from minimodal.home import Home
from minimodal.images.layer_store import LayerStore
from minimodal.types import ContainerSpec

from . import bundle
from .mounts import ResolvedMount, resolve_mounts
from .network_settings import network_variables
from .rlimit import limited
from .rootfs import SYSTEM, RootFiles, prefixes_of
from .rootfs import arguments as root_arguments
from .system_files import ACCOUNT

HOME_INSIDE = "/root"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent")
WALLS = (*NAMESPACES, "--cap-drop", "ALL", "--new-session")
MAX_ARGUMENTS = 9000  # bwrap's own limit


class Plan(NamedTuple):
    """The options, and the command with the environment that it gets."""

    options: tuple[str, ...]
    command: tuple[str, ...]
    env: Mapping[str, str]
    workdir: str
    mounts: tuple[ResolvedMount, ...]
    gated: bool  # it is a command of the user's, not the agent


class Site(NamedTuple):
    """What all containers of one backend share."""

    home: Home
    identity: tuple[str, ...]
    passwd: Path
    group: Path
    host_env: Mapping[str, str]


def plan(
    site: Site, spec: ContainerSpec, socket_directory: Path, controllers: frozenset[str]
) -> Plan:
    """Reads layers' and mounts' places from disk; raises LaunchError or BuildError if one is gone."""
    image = spec.image
    layers = LayerStore(site.home).stack(image.name) if image.name else ()
    binds = [
        *bundle.packages(bundle.bundle(site.home)),
        (socket_directory, bundle.SOCKET_DIRECTORY),
    ]
    for layer in layers:
        if interpreter := layer.meta.get("interpreter"):
            bundle.compile_for(site.home, str(interpreter))
    if not any((layer.files / "etc" / "passwd").exists() for layer in layers):
        binds += [(site.passwd, "/etc/passwd"), (site.group, "/etc/group")]
    network = network_variables(site.host_env)
    binds += [(Path(path), path) for path in _certificates(network.values())]
    mounts = resolve_mounts(site.home, (*image.mounts, *spec.mounts))
    files = RootFiles(
        layers=layers,
        binds=binds,
        mounts=mounts,
        prefixes=_prefixes(image.python, layers_meta=[layer.meta for layer in layers]),
    )
    env = {
        "PATH": PATH,
        "HOME": HOME_INSIDE,
        "USER": ACCOUNT,
        "LOGNAME": ACCOUNT,
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
        **network,
        **dict(image.env),
        **spec.env,
    }
    sources = next((m.target for m in spec.mounts if m.kind == "sources"), None)
    if sources:
        env["MINIMODAL_SOURCES_DIR"] = sources
    _check(env)
    workdir = spec.workdir or image.workdir or HOME_INSIDE
    options = [
        *site.identity,
        *WALLS,
        "--hostname",
        spec.id[:64],
        *(["--unshare-net"] if spec.block_network else []),
        *root_arguments(files),
        "--chdir",
        workdir,
        "--clearenv",
    ]
    for name, value in env.items():
        options += ["--setenv", name, value]
    agent_or_own = spec.command or (*image.entrypoint, *bundle.agent_command(image.python))
    command = limited(agent_or_own, spec.resources, controllers, pids=True)
    return Plan(tuple(options), command, env, workdir, mounts, spec.command is not None)


def arguments_fd(options: Sequence[str]) -> int:
    """A descriptor from which bwrap reads its options. Whoever asks for it closes it."""
    if len(options) > MAX_ARGUMENTS:
        raise InvalidError(
            f"too many layers, mounts and variables for one container: {len(options)}"
        )
    fd = os.memfd_create("bwrap-arguments")
    os.write(fd, b"".join(os.fsencode(option) + b"\0" for option in options))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _prefixes(python: str, layers_meta: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """The image's interpreter, and those that the builder recorded for its environments."""
    found = list(prefixes_of(python))
    for meta in layers_meta:
        recorded = meta.get("prefixes", ())
        assert isinstance(recorded, (list, tuple))
        found += [str(prefix) for prefix in recorded]
    return tuple(dict.fromkeys(found))


def _certificates(values: Iterable[str]) -> list[str]:
    paths = {value for value in values if os.path.isabs(value) and os.path.isfile(value)}
    return sorted(path for path in paths if path.split("/")[1] not in SYSTEM)


def _check(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise InvalidError(f"the environment variable {name!r} cannot be set")
