"""What a build container needs of this machine to reach package indexes: variables and mounts. Pure
but for looking whether a path exists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from minimodal.backends.docker_spec import Bind
from minimodal.backends.network_settings import PROXY_VARIABLES
from minimodal.layers import Layer, PipInstall

from .docker_commands import PLACE
from .index_settings import local_paths, package_environment


class BuildNetwork(NamedTuple):
    """`env` can hold passwords: for build steps alone. `proxies` is its part that a Dockerfile may see."""

    env: Mapping[str, str]
    proxies: Mapping[str, str]
    binds: tuple[Bind, ...]
    needs_host: bool  # an index or a proxy on this machine's loopback


def build_network(host_env: Mapping[str, str], layer: Layer | None = None) -> BuildNetwork:
    """Paths of this machine are mounted, and named by where they are in the container.

    `layer`: the step, which may name an index on this machine too.
    """
    env = package_environment(host_env)
    for name in ("SSL_CERT_DIR", "ssl_cert_dir"):  # the bundle says it all
        env.pop(name, None)
    binds: list[Bind] = []
    targets: dict[str, str] = {}
    for path in local_paths(env):
        # A local index links to files beside itself.
        source = Path(path).parent if _is_index(path, env) else Path(path)
        target = f"{PLACE}/host/{len(binds)}"
        targets[path] = target if source == Path(path) else f"{target}/{Path(path).name}"
        binds.append(Bind(str(source), target))
    for path in sorted(targets, key=len, reverse=True):
        env = {name: value.replace(path, targets[path]) for name, value in env.items()}
    names = {name.lower() for name in PROXY_VARIABLES}
    return BuildNetwork(
        env=env,
        proxies={name: value for name, value in env.items() if name.lower() in names},
        binds=tuple(binds),
        needs_host=any(
            _on_loopback(word)
            for value in (*env.values(), *_sources(layer))
            for word in value.split()
        ),
    )


def _sources(layer: Layer | None) -> tuple[str, ...]:
    """Where a step says that packages come from."""
    if not isinstance(layer, PipInstall):
        return ()
    named = (layer.index_url, layer.extra_index_url, layer.find_links, layer.extra_options)
    return (*(word for word in named if word), *(value for _, value in layer.env))


def _is_index(path: str, env: Mapping[str, str]) -> bool:
    indexes = f"{env.get('UV_DEFAULT_INDEX', '')} {env.get('UV_INDEX', '')}"
    return f"file://{path}" in indexes and Path(path).is_dir()


def _on_loopback(url: str) -> bool:
    if "://" not in url:
        return False
    host = urlsplit(url.rpartition("=")[2] if url.startswith("=") else url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")
