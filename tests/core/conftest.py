"""One platform and one running app for a whole module and backend: containers are reused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.config import load_config
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.core import functions
from tests.leftovers import nothing_left


@pytest.fixture(scope="module", params=BACKENDS)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The check of tests/conftest.py for the module: warm containers outlive a single test."""
    with nothing_left(request.param == "docker"):
        yield request.param


@pytest.fixture(scope="module")
def host(leaves_nothing: str) -> Iterator[Host]:
    with Host(load_config({"backend": leaves_nothing})) as host:
        yield host


@pytest.fixture(scope="module", autouse=True)
def running(host: Host) -> Iterator[Host]:
    with functions.app.run():
        yield host
