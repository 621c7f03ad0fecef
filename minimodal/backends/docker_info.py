"""What `docker info` tells us: who to be in a container, what is enforced, whether it is our machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

from minimodal.errors import RuntimeUnavailable
from minimodal.types import Capabilities

from .docker_host import DockerHost
from .identity import PREFERRED_UID


def container_user(info: Mapping[str, Any]) -> str:
    """Not root, and able to read our sources and to write our volumes: this process's own user.

    In a rootless engine that user is the container's root, who is nobody special outside. Started
    by root it is the user of root's sandboxes, so that a volume's files have one owner.
    """
    if "name=rootless" in (info.get("SecurityOptions") or []):
        return "0:0"
    if os.geteuid() == 0:
        return f"{PREFERRED_UID}:{PREFERRED_UID}"
    return f"{os.geteuid()}:{os.getegid()}"


def is_local(info: Mapping[str, Any]) -> bool:
    """Whether the engine sees this machine's files. In a virtual machine, or on another, it does not."""
    theirs = (info.get("Name"), info.get("KernelVersion"))
    return theirs == (platform.node(), platform.release())


def check_runtime(host: DockerHost, info: Mapping[str, Any], runtime: str | None) -> None:
    """Refuse a runtime of the settings that the engine does not have."""
    known = sorted(info.get("Runtimes") or {})
    if runtime and runtime not in known:
        raise RuntimeUnavailable(
            f"the Docker engine at {host} has no OCI runtime {runtime!r}; it has {', '.join(known)}."
        )


def has_gpu(info: Mapping[str, Any]) -> bool:
    """Whether it can give GPUs to containers: NVIDIA's toolkit registers a runtime of its name."""
    return "nvidia" in (info.get("Runtimes") or {})


def capabilities(host: DockerHost, info: Mapping[str, Any], local: bool = True) -> Capabilities:
    """What this engine enforces, by its own words."""

    def limited(key: str, words: str) -> str:
        return words if info.get(key) else "not limited: the engine's host has no such cgroup"

    runtimes = ", ".join(sorted(info.get("Runtimes") or {}))
    return Capabilities(
        name="docker",
        files="the image alone; sources read-only",
        processes="own pid, ipc and uts namespaces; no capabilities, no new privileges, seccomp",
        network="own namespace with a way out, shared by one engine's functions; or none",
        memory=limited("MemoryLimit", "memory_limit, in a cgroup; swap included"),
        cpu=limited("CpuCfsQuota", "cpu as shares, cpu_limit as quota"),
        pids=limited("PidsLimit", "in a cgroup"),
        gpu="NVIDIA's, by device requests" if has_gpu(info) else "",
        notes=(
            f"Docker {info.get('ServerVersion')} at {host}",
            f"OCI runtimes: {runtimes}",
            *(() if local else ("on another machine: files are copied, no volumes to write to",)),
        ),
    )
