"""One platform and one running app for a whole module and backend: containers are reused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal import Secret
from minimodal.config import load_config
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.leftovers import nothing_left
from tests.objects import functions

once = pytest.mark.parametrize("leaves_nothing", ["process"], indirect=True, scope="module")
"""For a test that uses no container: one backend is enough."""


@pytest.fixture(scope="module", params=BACKENDS)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The check of tests/conftest.py for the module: warm containers outlive a single test."""
    with nothing_left(request.param == "docker"):
        yield request.param


@pytest.fixture(scope="module")
def host(leaves_nothing: str) -> Iterator[Host]:
    with Host(load_config({"backend": leaves_nothing})) as host:
        yield host


@pytest.fixture(scope="module")
def running(host: Host) -> Iterator[Host]:
    Secret.from_name("stored").set({"STORED": "kept", "OVER": "stored", "TOKEN": "later-wins"})
    with functions.app.run():
        yield host
