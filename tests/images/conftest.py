"""The lab, once for each test file and backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.config import load_config
from minimodal.host import Host
from tests.images.lab import Lab
from tests.leftovers import Leftovers

BACKENDS = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest, home: Path) -> Iterator[Lab]:
    docker = request.param == "docker"
    before = Leftovers.now(docker)
    with Host(load_config({"backend": request.param})) as host:
        yield Lab(host, request.param)
    left = before.left_behind(docker)
    assert not left, "left behind:\n" + "\n".join(left)
