"""What of this machine's settings must reach containers so that they reach the network: the CA
bundle, proxies and package indexes of a company's network. Pure: from an environment to data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .docker_spec import Bind

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "FTP_PROXY")
CA_TARGET = "/dev/minimodal/ca.pem"  # /dev is a tmpfs: a mount point there is in no image's layer
LINKS_TARGET = "/dev/minimodal/links"

# uv does not read pip's settings; a machine set up for pip must do.
UV_NAMES = {
    "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
    "PIP_EXTRA_INDEX_URL": "UV_INDEX",
    "PIP_FIND_LINKS": "UV_FIND_LINKS",
    "PIP_TRUSTED_HOST": "UV_INSECURE_HOST",
    "PIP_NO_INDEX": "UV_NO_INDEX",
}
# Paths and switches that are about this machine's own files, not about the network.
KEPT_HERE = {
    "PIP_CACHE_DIR",
    "PIP_CONFIG_FILE",
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_TARGET",
    "PIP_USER",
    "UV_CACHE_DIR",
    "UV_CONFIG_FILE",
    "UV_LINK_MODE",
    "UV_OFFLINE",
    "UV_PROJECT_ENVIRONMENT",
    "UV_PYTHON",
    "UV_PYTHON_INSTALL_DIR",
    "UV_SYSTEM_PYTHON",
    "UV_TOOL_BIN_DIR",
    "UV_TOOL_DIR",
}


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Environment and binds for containers. `build` is for build steps alone: index URLs can hold
    a password, so they stay out of a container's visible environment."""

    run: Mapping[str, str]
    build: Mapping[str, str]
    binds: tuple[Bind, ...]
    build_binds: tuple[Bind, ...]
    needs_host_network: bool  # a proxy or index on this machine's loopback


def host_settings(env: Mapping[str, str]) -> HostSettings:
    """Read an environment such as `os.environ`."""
    run: dict[str, str] = {}
    binds: list[Bind] = []
    bundle = next((env[name] for name in CA_VARIABLES if env.get(name)), None)
    if bundle and Path(bundle).is_file():
        binds.append(Bind(bundle, CA_TARGET))
        run.update(dict.fromkeys(CA_VARIABLES, CA_TARGET))
    for name in PROXY_VARIABLES:
        value = env.get(name) or env.get(name.lower())
        if value:
            run[name] = run[name.lower()] = value
    indexes, link_binds = _indexes(env)
    addresses = [value for value in (*run.values(), *indexes.values()) if "://" in value]
    return HostSettings(
        run=run,
        build={**run, **indexes},
        binds=tuple(binds),
        build_binds=tuple(link_binds),
        needs_host_network=any(_on_loopback(one) for text in addresses for one in text.split()),
    )


def _indexes(env: Mapping[str, str]) -> tuple[dict[str, str], list[Bind]]:
    found: dict[str, str] = {}
    binds: list[Bind] = []
    for name, value in env.items():
        if not value or name in KEPT_HERE or name in CA_VARIABLES:
            continue
        if not name.startswith(("PIP_", "UV_")):
            continue
        if name in ("PIP_FIND_LINKS", "UV_FIND_LINKS"):
            value = " ".join(_reachable(item, binds) for item in value.replace(",", " ").split())
        found[name] = value
        if name in UV_NAMES and not env.get(UV_NAMES[name]):
            found[UV_NAMES[name]] = value
    return found, binds


def _reachable(links: str, binds: list[Bind]) -> str:
    """A directory of wheels is mounted, and named by where it is in the container."""
    path = links.removeprefix("file://")
    if not Path(path).is_dir():
        return links
    target = next((bind.target for bind in binds if bind.source == path), None)
    if target is None:
        target = f"{LINKS_TARGET}/{len(binds)}"
        binds.append(Bind(path, target))
    return target


def _on_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
