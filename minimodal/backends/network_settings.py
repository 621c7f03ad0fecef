"""What of this machine's settings reaches running containers, so that they reach the network: the CA
bundle and the proxies. Package indexes do not: their URLs can hold passwords, and an environment is
shown by `docker inspect`. Pure but for looking whether the bundle exists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .docker_spec import Bind

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
CA_TARGET = "/dev/minimodal/ca.pem"  # /dev is a tmpfs: a mount point there is in no image's layer


def network_variables(host_env: Mapping[str, str]) -> dict[str, str]:
    """For containers that see this machine's files: the variables as they are."""
    names = (*CA_VARIABLES, *PROXY_VARIABLES, *(name.lower() for name in PROXY_VARIABLES))
    return {name: host_env[name] for name in names if host_env.get(name)}


class NetworkSettings(NamedTuple):
    """Environment and mounts for every container of Docker."""

    env: Mapping[str, str]
    binds: tuple[Bind, ...]


def network_settings(host_env: Mapping[str, str]) -> NetworkSettings:
    """For containers with files of their own. `host_env`: such as `os.environ`."""
    env: dict[str, str] = {}
    binds: tuple[Bind, ...] = ()
    bundle = next((host_env[name] for name in CA_VARIABLES if host_env.get(name)), None)
    if bundle and Path(bundle).is_file():
        binds = (Bind(bundle, CA_TARGET),)
        env.update(dict.fromkeys(CA_VARIABLES, CA_TARGET))
    for name in PROXY_VARIABLES:
        value = host_env.get(name) or host_env.get(name.lower())
        if value:
            env[name] = env[name.lower()] = value
    return NetworkSettings(env, binds)
