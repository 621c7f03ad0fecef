"""A `ContainerSpec` as the Docker API's create request: names, labels, walls and limits. Pure.

What holds in every container: no capabilities, no way to new privileges, a pids limit, no core
dumps, an init that reaps, no log driver (the agent's connection carries the logs), and a user that
is not root, unless root's image asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from minimodal.types import ContainerSpec, Resources

NAME = "minimodal-"  # containers of ours are found by label *and* name: images pass labels on
ENGINE_LABEL = "minimodal.engine"
HOME_LABEL = "minimodal.home"

DEFAULT_DIRECTORY = "/tmp"  # working directory and HOME: a user that is not root can write there
STDIN_UNTIL_DEATH = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
"""Its stdin ends when the engine process that is attached dies: who reads it exits by itself."""


class Owner(NamedTuple):
    """Whose containers they are. An engine that finds a dead owner's removes them."""

    engine: str
    home: str

    def labels(self) -> dict[str, str]:
        return {ENGINE_LABEL: self.engine, HOME_LABEL: self.home}


class Bind(NamedTuple):
    """A path of this machine inside a container."""

    source: str
    target: str
    read_only: bool = True

    def mount(self) -> dict[str, Any]:
        return {
            "Type": "bind",
            "Source": self.source,
            "Target": self.target,
            "ReadOnly": self.read_only,
        }


WALLS: Mapping[str, Any] = {
    "CapDrop": ["ALL"],
    "SecurityOpt": ["no-new-privileges"],
    "LogConfig": {"Type": "none", "Config": {}},
    "Init": True,
    "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
}


def create_request(
    spec: ContainerSpec,
    owner: Owner,
    *,
    command: Sequence[str],
    env: Mapping[str, str],
    binds: Sequence[Bind],
    user: str,
    network: str,
    gpu: bool = False,
) -> dict[str, Any]:
    """The body of `POST /containers/create` for a function's or a sandbox's container.

    `gpu`: whether the engine has any; without, a function that may go without runs on the CPU.
    """
    host: dict[str, Any] = {
        **WALLS,
        **limits(spec.resources),
        **(device_requests(spec.resources.gpu) if gpu and spec.resources.gpu else {}),
        "NetworkMode": network,
        "Mounts": [bind.mount() for bind in binds],
    }
    if spec.runtime:
        host["Runtime"] = spec.runtime
    return {
        "Image": spec.image.name,
        # An image's own entry point would take the agent's command for its arguments.
        "Entrypoint": [*(spec.image.entrypoint if spec.command is None else ()), *command],
        "Cmd": [],
        "User": user,
        "Env": [f"{key}={value}" for key, value in env.items()],
        "WorkingDir": spec.workdir or spec.image.workdir or DEFAULT_DIRECTORY,
        "Labels": {**owner.labels(), "minimodal.container": spec.id, "minimodal.for": spec.label},
        "HostConfig": host,
    }


def limits(resources: Resources) -> dict[str, Any]:
    """cgroup settings: what was asked for as shares and reservation, the limits as limits."""
    settings: dict[str, Any] = {
        "CpuShares": max(2, int(resources.cpu * 1024)),
        "PidsLimit": resources.pids_limit,
        "ShmSize": (resources.memory_limit or 2048) << 20,  # tmpfs pages count as its memory anyway
    }
    if resources.memory_limit is not None:
        # The same figure for memory and swap: over its limit it is killed, it does not crawl.
        settings["Memory"] = settings["MemorySwap"] = resources.memory_limit << 20
        settings["MemoryReservation"] = min(resources.memory, resources.memory_limit) << 20
    else:
        settings["MemoryReservation"] = resources.memory << 20
    if resources.cpu_limit is not None:
        settings["NanoCpus"] = int(resources.cpu_limit * 1e9)
    return settings


def device_requests(wanted: str) -> dict[str, Any]:
    """ "any", "A100", "A100:2", "H100,A100:2" (the first counts): so many of what the machine has."""
    _, _, count = wanted.partition(",")[0].partition(":")
    request = {"Driver": "nvidia", "Count": int(count or 1), "Capabilities": [["gpu"]]}
    return {"DeviceRequests": [request]}
