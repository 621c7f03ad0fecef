from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.home import Home, open_home


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = open_home(tmp_path / "h")
    yield home
    shutil.rmtree(home.runtime)  # elsewhere where the test's own path is too long for a socket
