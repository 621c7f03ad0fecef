"""Containers that do not start, or do not end in order: F21, F22 and calls at import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minimodal.home import Home

Seen = Callable[[str], None]

CALLS_AT_IMPORT = """
import minimodal
app = minimodal.App("loop")
@app.function()
def f(x: int) -> int:
    return x
print(f.remote(1))
"""


@pytest.mark.fault(
    "F21",
    injected="a module that calls .remote() while its container imports it",
    expected="an error at once that says where the call belongs; no chain of containers",
)
def test_f21_a_call_at_import(own_home: Home, tmp_path: Path, seen: Seen) -> None:
    script = tmp_path / "loop.py"
    script.write_text(CALLS_AT_IMPORT)
    environment = {
        **os.environ,
        "MINIMODAL_HOME": str(own_home.state.parent),
        "MINIMODAL_BACKEND": "process",
    }
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 1
    assert "f is called while its container imports the module" in done.stderr
    seen(done.stderr.strip().splitlines()[-1][:100])
