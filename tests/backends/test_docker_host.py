"""The docker CLI's rules for choosing an engine; no engine needed."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest

from minimodal.backends.docker_host import find_docker_hosts
from minimodal.errors import RuntimeUnavailable


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A home with two contexts, `remote` and `secure`, none of them current."""
    add_context(tmp_path / ".docker", "remote", {"Host": "unix:///ctx.sock"})
    add_context(tmp_path / ".docker", "secure", {"Host": "tcp://far", "SkipTLSVerify": True})
    folder = tmp_path / ".docker/contexts/tls" / digest("secure") / "docker"
    folder.mkdir(parents=True)
    return tmp_path


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def add_context(directory: Path, name: str, endpoint: dict[str, object]) -> None:
    folder = directory / "contexts/meta" / digest(name)
    folder.mkdir(parents=True)
    meta = {"Name": name, "Endpoints": {"docker": endpoint}}
    (folder / "meta.json").write_text(json.dumps(meta))


def use_context(user: Path, name: str) -> None:
    (user / ".docker/config.json").write_text(json.dumps({"currentContext": name}))


def url(user: Path, explicit: str | None = None, **env: str) -> str:
    (found,) = find_docker_hosts(explicit, {"HOME": str(user), **env})
    return found.url


def test_the_order_is_that_of_the_docker_cli(user: Path) -> None:
    use_context(user, "secure")
    env = {"DOCKER_HOST": "unix:///env.sock", "DOCKER_CONTEXT": "remote"}
    assert url(user, "unix:///flag.sock", **env) == "unix:///flag.sock"
    assert url(user, **env) == "unix:///env.sock"
    assert url(user, DOCKER_CONTEXT="remote") == "unix:///ctx.sock"
    assert url(user) == "tcp://far:2376"


def test_context_default_means_the_default_sockets(user: Path) -> None:
    use_context(user, "remote")
    with socket.socket(socket.AF_UNIX) as listener:
        (user / "run").mkdir()
        listener.bind(str(user / "run/docker.sock"))
        env = {"HOME": str(user), "XDG_RUNTIME_DIR": str(user / "run"), "DOCKER_CONTEXT": "default"}
        found = [host.url for host in find_docker_hosts(None, env)]
    assert f"unix://{user}/run/docker.sock" in found


def test_docker_config_moves_the_contexts(user: Path, tmp_path: Path) -> None:
    add_context(tmp_path / "elsewhere", "other", {"Host": "unix:///other.sock"})
    (tmp_path / "elsewhere/config.json").write_text('{"currentContext": "other"}')
    assert url(user, DOCKER_CONFIG=str(tmp_path / "elsewhere")) == "unix:///other.sock"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("tcp://1.2.3.4", "tcp://1.2.3.4:2375"),
        ("1.2.3.4:99", "tcp://1.2.3.4:99"),
        ("tcp://[::1]", "tcp://[::1]:2375"),
        ("tcp://[::1]:77", "tcp://[::1]:77"),
        ("unix:///x.sock", "unix:///x.sock"),
    ],
)
def test_addresses_are_completed(user: Path, given: str, meant: str) -> None:
    assert url(user, DOCKER_HOST=given) == meant


def test_tls_by_environment_and_by_context(user: Path) -> None:
    env = {"HOME": str(user), "DOCKER_HOST": "tcp://far", "DOCKER_TLS_VERIFY": "1"}
    (host,) = find_docker_hosts(None, {**env, "DOCKER_CERT_PATH": "/certs"})
    assert host.url == "tcp://far:2376"
    assert host.tls is not None
    assert (str(host.tls.directory), host.tls.verify) == ("/certs", True)
    (host,) = find_docker_hosts(None, {"HOME": str(user), "DOCKER_CONTEXT": "secure"})
    assert host.tls is not None
    assert not host.tls.verify


def test_a_missing_context_is_an_error_that_names_it(user: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"'lost' \(from DOCKER_CONTEXT\) does not exist"):
        url(user, DOCKER_CONTEXT="lost")


def test_unreadable_settings_are_an_error_that_names_the_file(user: Path) -> None:
    (user / ".docker/config.json").write_text("{half")
    with pytest.raises(RuntimeUnavailable, match=r"config\.json cannot be read"):
        url(user)
