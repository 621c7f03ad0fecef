"""One platform with the test app and an open gateway, for a whole module and backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from minimodal.config import load_config
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.gateway import functions
from tests.leftovers import nothing_left


@pytest.fixture(scope="module", params=BACKENDS)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The check of tests/conftest.py for the module: warm containers outlive a single test."""
    with nothing_left(request.param == "docker"):
        yield request.param


@pytest.fixture(scope="module")
def host(leaves_nothing: str) -> Iterator[Host]:
    with Host(load_config({"backend": leaves_nothing, "port": 0})) as host:
        yield host


@pytest.fixture(scope="module")
def base(host: Host) -> Iterator[str]:
    """The URL of the gateway, without a slash at its end."""
    with functions.app.run():
        yield host.door.url.rstrip("/")


@pytest.fixture
def http(base: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base, timeout=20) as client:
        yield client


@pytest.fixture
def everything(base: str) -> Iterator[httpx.Client]:
    """A client of the endpoint `everything`."""
    with httpx.Client(base_url=f"{base}/everything", timeout=20) as client:
        yield client
