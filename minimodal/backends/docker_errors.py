"""The engine's refusals as our errors, with the way out. Pure."""

from __future__ import annotations

from minimodal.errors import BuildError, Error, LaunchError, RuntimeUnavailable
from minimodal.types import ContainerSpec

from .docker_api import DockerApi
from .docker_requests import DockerFailure


def launch_error(spec: ContainerSpec, failure: DockerFailure, api: DockerApi) -> Error:
    """Why a container did not start."""
    words = str(failure)
    if failure.status == 0:
        return RuntimeUnavailable(
            f"no container of {spec.label} can start until the Docker engine answers again, so see "
            f"whether it runs: {words}"
        )
    if failure.status == 404 and "no such image" in words.lower():
        return BuildError(
            f"the image {spec.image.name} of {spec.label} is gone from the Docker engine. "
            "It is built again at the next start; a base image comes back with `docker pull` or "
            "`minimodal image bootstrap`."
        )
    return LaunchError(f"the container of {spec.label} did not start: {words}{_hint(words, api)}")


def _hint(words: str, api: DockerApi) -> str:
    text = words.lower()
    if "no space left" in text:
        return f". The disk of Docker's data ({api.info.get('DockerRootDir')}) is full."
    if "runtime" in text and ("unknown" in text or "invalid" in text):
        known = ", ".join(sorted(api.info.get("Runtimes") or {}))
        return f". The engine has these runtimes: {known}."
    if "bridge" in text or "network" in text or "iptables" in text:
        return (
            ". The engine's network is broken (restarting the engine usually repairs it); "
            "functions with block_network=True still start."
        )
    if "device driver" in text and "gpu" in text:
        return ". The engine has no NVIDIA container toolkit, or the machine no GPU."
    return ""
