"""The lab, once for each test file and backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.config import load_config
from minimodal.host import Host
from tests.images.lab import Lab
from tests.leftovers import nothing_left

BACKENDS = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(scope="module", params=BACKENDS)
def lab(request: pytest.FixtureRequest, home: Path) -> Iterator[Lab]:
    with nothing_left(request.param == "docker"):
        with Host(load_config({"backend": request.param})) as host:
            yield Lab(host, request.param)
