"""Which Docker engine to use: the docker CLI's own rules, as a function of data.

Reads the environment and the files under `$DOCKER_CONFIG`; never connects. Measured against the
CLI (20.10 and 28.2): DOCKER_HOST wins over DOCKER_CONTEXT, although the manual says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minimodal.errors import RuntimeUnavailable


class Tls(NamedTuple):
    """Certificates of a TCP engine. A missing file means: the system's, or none."""

    directory: Path
    verify: bool

    def context(self) -> ssl.SSLContext:
        ca, cert, key = (self.directory / f"{name}.pem" for name in ("ca", "cert", "key"))
        context = ssl.create_default_context(cafile=str(ca) if ca.is_file() else None)
        if cert.is_file():
            context.load_cert_chain(cert, key)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


class DockerHost(NamedTuple):
    """An engine's address and who named it, in words for error messages and `doctor`."""

    url: str
    origin: str
    tls: Tls | None = None

    @property
    def socket(self) -> str | None:
        return self.url.removeprefix("unix://") if self.url.startswith("unix://") else None

    def __str__(self) -> str:
        return f"{self.url} ({self.origin})"


def find_docker_hosts(explicit: str | None, env: Mapping[str, str]) -> tuple[DockerHost, ...]:
    """The engine that the docker CLI would use; without any setting, each known socket that exists.

    Raises RuntimeUnavailable where a setting names a context that is missing or unreadable.
    """
    directory = Path(env.get("DOCKER_CONFIG") or _user(env) / ".docker")
    if explicit:
        return (_named(explicit, "--docker-host", env, directory),)
    if env.get("DOCKER_HOST"):
        return (_named(env["DOCKER_HOST"], "DOCKER_HOST", env, directory),)
    name, origin = env.get("DOCKER_CONTEXT"), "DOCKER_CONTEXT"
    if not name:
        name, origin = _current_context(directory), f"docker context in {directory}/config.json"
    if name and name != "default":
        return (_from_context(name, origin, directory),)
    return tuple(
        DockerHost(f"unix://{path}", "default socket") for path in sockets(env) if path.is_socket()
    )


def sockets(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Where engines listen when nobody says otherwise: Docker, rootless, Desktop, Podman."""
    user = _user(env)
    runtime = env.get("XDG_RUNTIME_DIR")
    own = (Path(runtime) / "docker.sock", Path(runtime) / "podman/podman.sock") if runtime else ()
    return (
        Path("/var/run/docker.sock"),
        *own[:1],
        user / ".docker/run/docker.sock",
        user / ".docker/desktop/docker.sock",
        *own[1:],
        Path("/run/podman/podman.sock"),
    )


def _user(env: Mapping[str, str]) -> Path:
    return Path(env["HOME"]) if env.get("HOME") else Path.home()


def _named(host: str, origin: str, env: Mapping[str, str], directory: Path) -> DockerHost:
    if "://" not in host:
        host = f"tcp://{host}"
    if not host.startswith("tcp://"):
        return DockerHost(host, origin)
    tls = None
    if env.get("DOCKER_TLS_VERIFY") or env.get("DOCKER_TLS"):
        certificates = Path(env.get("DOCKER_CERT_PATH") or directory)
        tls = Tls(certificates, verify=bool(env.get("DOCKER_TLS_VERIFY")))
    return DockerHost(_with_port(host, tls), origin, tls)


def _with_port(host: str, tls: Tls | None) -> str:
    address = host.removeprefix("tcp://").rstrip("/")
    has_port = address.rpartition("]")[2].rpartition(":")[2].isdigit() and ":" in address
    return f"tcp://{address}" if has_port else f"tcp://{address}:{2376 if tls else 2375}"


def _current_context(directory: Path) -> str | None:
    path = directory / "config.json"
    if not path.is_file():
        return None
    name = _read_json(path).get("currentContext")
    return name if isinstance(name, str) else None


def _from_context(name: str, origin: str, directory: Path) -> DockerHost:
    folder = hashlib.sha256(name.encode()).hexdigest()
    meta = directory / "contexts/meta" / folder / "meta.json"
    if not meta.is_file():
        raise RuntimeUnavailable(
            f"the docker context {name!r} (from {origin}) does not exist. "
            "`docker context ls` lists those that do; `docker context use default` resets it."
        )
    endpoint = _read_json(meta).get("Endpoints", {}).get("docker", {})
    host = endpoint.get("Host")
    if not isinstance(host, str) or not host:
        raise RuntimeUnavailable(f"the docker context {name!r} names no host: see {meta}")
    certificates = directory / "contexts/tls" / folder / "docker"
    tls = None
    if host.startswith("tcp://") and certificates.is_dir():
        tls = Tls(certificates, verify=not endpoint.get("SkipTLSVerify", False))
    url = _with_port(host, tls) if host.startswith("tcp://") else host
    return DockerHost(url, f"context {name!r}", tls)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RuntimeUnavailable(f"{path} cannot be read as Docker's settings: {error}") from error
    return value if isinstance(value, dict) else {}
