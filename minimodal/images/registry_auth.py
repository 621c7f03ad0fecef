"""The login for a registry, where the docker CLI keeps it: config.json and its helper programs."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HUB = "https://index.docker.io/v1/"
HELPER_WITHIN = 10


@dataclass(frozen=True, slots=True)
class Credentials:
    """What to log in with, and where that was found."""

    auth: Mapping[str, str] = field(repr=False)
    origin: str


def registry_of(tag: str) -> str:
    """The registry's host as config.json spells it."""
    first, slash, _ = tag.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in ("docker.io", "index.docker.io") else HUB


def credentials_for(tag: str, secret: Mapping[str, str]) -> Credentials | None:
    """The secret of `from_registry` first, then the docker CLI's own. Blocking only for a helper."""
    registry = registry_of(tag)
    if secret.get("REGISTRY_USERNAME"):
        pair = (secret["REGISTRY_USERNAME"], secret.get("REGISTRY_PASSWORD", ""))
        return Credentials(_login(registry, *pair), "the secret that the image names")
    path = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper and (found := _ask(str(helper), registry)):
        return Credentials(found, f"docker-credential-{helper}")
    entry = (config.get("auths") or {}).get(registry)
    if isinstance(entry, dict) and (login := _from_entry(entry, registry)):
        return Credentials(login, str(path))
    return None


def _from_entry(entry: Mapping[str, Any], registry: str) -> dict[str, str] | None:
    if entry.get("identitytoken"):
        return {"identitytoken": str(entry["identitytoken"]), "serveraddress": registry}
    try:
        user, colon, password = base64.b64decode(str(entry.get("auth", ""))).decode().partition(":")
    except ValueError:
        return None
    return _login(registry, user, password) if colon else None


def _ask(helper: str, registry: str) -> dict[str, str] | None:
    try:
        answer = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=registry.encode(),
            capture_output=True,
            timeout=HELPER_WITHIN,
            check=True,
        )
        found = json.loads(answer.stdout)
        user, secret = str(found["Username"]), str(found["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None  # the pull is tried without, and says what the registry answered
    if user == "<token>":
        return {"identitytoken": secret, "serveraddress": registry}
    return _login(registry, user, secret)


def _login(registry: str, user: str, password: str) -> dict[str, str]:
    return {"username": user, "password": password, "serveraddress": registry}
