"""One platform for a whole module and backend, and one sandbox that stays, for what needs no own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal import Sandbox
from minimodal.config import load_config
from minimodal.host import Host
from tests.conftest import BACKENDS
from tests.leftovers import nothing_left


@pytest.fixture(scope="module", params=BACKENDS)
def leaves_nothing(request: pytest.FixtureRequest, home: Path) -> Iterator[str]:
    """The check of tests/conftest.py for the module; gives the backend's name."""
    with nothing_left(request.param == "docker"):
        yield request.param


@pytest.fixture(scope="module", autouse=True)
def host(leaves_nothing: str) -> Iterator[Host]:
    with Host(load_config({"backend": leaves_nothing})) as host:
        yield host


@pytest.fixture
def backend(leaves_nothing: str) -> str:
    return leaves_nothing


@pytest.fixture(scope="module")
def box(host: Host) -> Sandbox:
    return Sandbox.create(timeout=120)
