from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.home import Home, open_home


@pytest.fixture
def own_home(scratch: Path) -> Iterator[Home]:
    """A home for one test, with a path that is short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="h", dir=scratch))
    yield open_home(directory)
    shutil.rmtree(directory)
