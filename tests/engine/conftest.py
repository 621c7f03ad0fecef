from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.home import Home, open_home


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def root(scratch: Path) -> Iterator[Path]:
    """A directory with a short name, so that a home in it holds its own sockets and locks."""
    path = scratch / uuid.uuid4().hex[:8]
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def own(root: Path) -> Home:
    """A home for this test alone."""
    return open_home(root / "h")
