from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.home import Home, open_home
from tests.cli.conftest import place as place
from tests.cli.conftest import program as program


@pytest.fixture
def own_home(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for this test alone, with a short path; it is also this process's."""
    path = scratch / uuid.uuid4().hex[:8]
    monkeypatch.setenv("MINIMODAL_HOME", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def opened(own_home: Path) -> Home:
    return open_home(own_home)
