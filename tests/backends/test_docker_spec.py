"""A spec as Docker's create request, and what of the host goes into it; no engine needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from minimodal.backends.docker_container import exit_reason
from minimodal.backends.docker_host import DockerHost
from minimodal.backends.docker_info import capabilities, has_gpu
from minimodal.backends.docker_spec import Bind, Owner, create_request, limits
from minimodal.backends.network_settings import CA_TARGET, network_settings
from minimodal.types import ContainerSpec, ExitReason, ImageRef, Resources


def created(spec: ContainerSpec, **options: Any) -> dict[str, Any]:
    return create_request(
        spec,
        Owner("en-1", "/home"),
        command=("python3", "agent"),
        env={},
        binds=[],
        user="7:7",
        network="none",
        **options,
    )


def test_each_container_has_the_walls_and_its_owner() -> None:
    image = ImageRef("", "python:3.11-slim", entrypoint=("/entry",), workdir="/image")
    spec = ContainerSpec("ct-1", "f", image, runtime="runsc")
    made = create_request(
        spec,
        Owner("en-1", "/home"),
        command=("python3", "agent"),
        env={"A": "b=c"},
        binds=[Bind("/here", "/there")],
        user="7:7",
        network="none",
    )
    assert made["Entrypoint"] == ["/entry", "python3", "agent"]
    assert made["Cmd"] == []
    assert (made["User"], made["Env"], made["WorkingDir"]) == ("7:7", ["A=b=c"], "/image")
    assert made["Labels"]["minimodal.engine"] == "en-1"
    host = made["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"]["Type"] == "none"
    assert (host["Init"], host["NetworkMode"], host["Runtime"]) == (True, "none", "runsc")
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/here", "Target": "/there", "ReadOnly": True}
    ]


def test_what_is_asked_for_is_a_share_and_a_limit_is_a_limit() -> None:
    asked = limits(Resources(cpu=2, memory=256))
    assert (asked["CpuShares"], asked["MemoryReservation"]) == (2048, 256 << 20)
    assert "Memory" not in asked
    assert "NanoCpus" not in asked
    limited = limits(Resources(memory=256, cpu_limit=0.5, memory_limit=128, pids_limit=9))
    assert limited["Memory"] == limited["MemorySwap"] == limited["MemoryReservation"] == 128 << 20
    assert (limited["NanoCpus"], limited["PidsLimit"]) == (500_000_000, 9)


@pytest.mark.parametrize(
    ("gpu", "count"), [("any", 1), ("A100", 1), ("A100:2", 2), ("H100:4,A100", 4)]
)
def test_gpus_are_asked_for_by_number(gpu: str, count: int) -> None:
    spec = ContainerSpec("ct-1", "f", ImageRef("", "python"), resources=Resources(gpu=gpu))
    host = created(spec, gpu=True)["HostConfig"]
    expected = {"Driver": "nvidia", "Count": count, "Capabilities": [["gpu"]]}
    assert host["DeviceRequests"] == [expected]
    assert "DeviceRequests" not in created(spec, gpu=False)["HostConfig"]


@pytest.mark.parametrize(("runtimes", "found"), [(["nvidia", "runc"], True), (["runc"], False)])
def test_an_engine_has_gpus_where_nvidias_runtime_is_set_up(
    runtimes: list[str], found: bool
) -> None:
    info = {"Runtimes": {name: {"path": name} for name in runtimes}}
    assert has_gpu(info) is found
    host = DockerHost("unix:///docker.sock", "a test")
    assert bool(capabilities(host, info).gpu) is found


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"ExitCode": 0}, ExitReason(code=0)),
        ({"ExitCode": 137}, ExitReason(signal=9)),
        ({"ExitCode": 137, "OOMKilled": True}, ExitReason(signal=9, oom=True)),
        ({"ExitCode": 0, "OOMKilled": True}, ExitReason(code=0)),  # a child was, earlier
        ({"ExitCode": 255, "Error": "why"}, ExitReason(code=255, detail="why")),
        ({}, ExitReason()),
    ],
)
def test_the_end_of_a_container_in_our_words(state: dict[str, object], reason: ExitReason) -> None:
    assert exit_reason(state) == reason


def test_containers_get_the_bundle_and_the_proxies_and_no_index(tmp_path: Path) -> None:
    bundle = tmp_path / "company.pem"
    bundle.write_text("…")
    found = network_settings(
        {
            "REQUESTS_CA_BUNDLE": str(bundle),
            "https_proxy": "http://proxy:3128",
            "PIP_INDEX_URL": "https://me:secret@index.example/simple",
            "UV_INDEX": "https://me:secret@index.example/simple",
        }
    )
    assert found.binds == (Bind(str(bundle), CA_TARGET),)
    assert found.env["SSL_CERT_FILE"] == found.env["PIP_CERT"] == CA_TARGET
    assert found.env["HTTPS_PROXY"] == found.env["https_proxy"] == "http://proxy:3128"
    assert "secret" not in str(found.env)
    assert network_settings({"SSL_CERT_FILE": "/no/such/file"}).env == {}
