"""What a Docker build takes from this machine: indexes, proxies, logins. No engine needed."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from minimodal.images.docker_dockerfile import dockerfile_text
from minimodal.images.docker_network_settings import build_network
from minimodal.images.registry_auth import HUB, credentials_for, registry_of
from minimodal.images.settings import settings_of
from minimodal.layers import Dockerfile, SetEnv, Workdir


@pytest.fixture
def host_env(tmp_path: Path) -> dict[str, str]:
    """An environment without pip's configuration files of this machine."""
    return {"PIP_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}


def test_paths_are_mounted_and_named_by_where_they_are(
    tmp_path: Path, host_env: dict[str, str]
) -> None:
    (tmp_path / "ca.pem").write_text("…")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "mirror/simple").mkdir(parents=True)
    found = build_network(
        {
            **host_env,
            "SSL_CERT_FILE": f"{tmp_path}/ca.pem",
            "PIP_FIND_LINKS": f"{tmp_path}/wheels",
            "UV_INDEX": f"file://{tmp_path}/mirror/simple",
        }
    )
    where = {bind.source: bind.target for bind in found.binds}
    assert found.env["SSL_CERT_FILE"] == where[f"{tmp_path}/ca.pem"]
    assert found.env["UV_FIND_LINKS"] == where[f"{tmp_path}/wheels"]
    # A local index links to files beside itself, so its parent is what is mounted.
    assert found.env["UV_INDEX"] == f"file://{where[f'{tmp_path}/mirror']}/simple"
    assert not any(str(tmp_path) in value for name, value in found.env.items() if name != "HOME")
    assert not found.needs_host


@pytest.mark.parametrize(
    ("index", "needs"),
    [
        ("http://localhost:3141/root", True),
        ("http://127.0.0.1:8080/simple", True),
        ("https://index.example/localhost", False),
    ],
)
def test_an_index_on_this_machine_needs_its_network(
    index: str, needs: bool, host_env: dict[str, str]
) -> None:
    assert build_network({**host_env, "PIP_INDEX_URL": index}).needs_host is needs


def test_a_dockerfile_sees_proxies_and_no_index(host_env: dict[str, str]) -> None:
    env = {**host_env, "HTTP_PROXY": "http://p:1", "PIP_INDEX_URL": "https://u:pw@index.example/s"}
    assert set(build_network(env).proxies.values()) == {"http://p:1"}


def test_instructions_over_a_parent_get_its_settings_and_their_arguments() -> None:
    layer = Dockerfile("RUN true", build_args=(("V", "1"),))
    settings = settings_of((SetEnv((("A", 'say "$5" \\o/'),)), Workdir("/w")))
    assert dockerfile_text(layer, "parent", settings).splitlines() == [
        "FROM parent",
        'ENV A="say \\"\\$5\\" \\\\o/"',
        'WORKDIR "/w"',
        "ARG V",
        "RUN true",
    ]


@pytest.mark.parametrize(
    ("tag", "registry"),
    [
        ("python:3.11-slim", HUB),
        ("me/app", HUB),
        ("docker.io/me/app:1", HUB),
        ("ghcr.io/me/app:1", "ghcr.io"),
        ("localhost:5000/app", "localhost:5000"),
    ],
)
def test_registries_are_spelt_as_docker_login_does(tag: str, registry: str) -> None:
    assert registry_of(tag) == registry


def test_the_login_comes_from_the_secret_the_helper_or_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-safe"
    helper.write_text(
        '#!/bin/sh\nread host\necho "{\\"Username\\": \\"h\\", \\"Secret\\": \\"$host\\"}"\n'
    )
    helper.chmod(0o755)
    login = base64.b64encode(b"user:pass:word").decode()
    config = {"auths": {"ghcr.io": {"auth": login}}, "credHelpers": {"safe.example": "safe"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    found = credentials_for("ghcr.io/me/app", {})
    assert found is not None
    assert (found.auth["username"], found.auth["password"]) == ("user", "pass:word")
    assert "pass" not in repr(found)
    found = credentials_for("safe.example/app", {})
    assert found is not None
    assert (found.auth["password"], found.origin) == ("safe.example", "docker-credential-safe")
    given = {"REGISTRY_USERNAME": "u", "REGISTRY_PASSWORD": "p"}
    found = credentials_for("ghcr.io/me/app", given)
    assert found is not None
    assert found.auth["username"] == "u"
    assert credentials_for("other.example/app", {}) is None
