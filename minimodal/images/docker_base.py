"""A base image: the engine has it, or it is pulled, or the error says where it can come from."""

from __future__ import annotations

import re
from collections.abc import Mapping

from anyio import to_thread

from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_requests import DockerFailure
from minimodal.layers import Base
from minimodal.protocols import Report

from .build import StepFailed
from .registry_auth import HUB, Credentials, credentials_for, registry_of

SLIM = re.compile(r"^(docker\.io/)?(library/)?python:(3\.\d+)-slim$")


async def pull(api: DockerApi, layer: Base, secret: Mapping[str, str], report: Report) -> None:
    """Raises StepFailed where neither the engine nor its registry has the image."""
    if await api.image(layer.tag) is not None:
        return
    found = await to_thread.run_sync(credentials_for, layer.tag, secret)
    name = f"docker.io/{layer.tag}" if found and registry_of(layer.tag) == HUB else layer.tag
    said: dict[str, str] = {}
    try:
        async for record in api.pull(name, found.auth if found else None):
            status, id = str(record.get("status", "")), str(record.get("id", ""))
            if status and said.get(id) != status:  # not each tick of each progress bar
                said[id] = status
                report(f"{id}: {status}" if id else status)
    except DockerFailure as error:
        raise StepFailed(_not_there(layer, error, found)) from error


def _not_there(layer: Base, error: DockerFailure, found: Credentials | None) -> str:
    words = f"the engine has no image {layer.tag} and could not pull it: {error}."
    tried = f" Tried the login of {found.origin}." if found else ""
    slim = SLIM.match(layer.tag)
    if slim:
        way = (
            f" Where no registry can be reached, `minimodal image bootstrap --python {slim[3]}` makes it "
            "from Debian's packages."
        )
    else:
        way = (
            f" `docker pull {layer.tag}` shows whether the engine can; `docker load` brings an image "
            "without a registry; `minimodal image bootstrap` makes python:3.11-slim from Debian's "
            "packages."
        )
    return f"{words}{tried}{way}"
