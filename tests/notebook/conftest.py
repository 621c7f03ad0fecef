"""Real notebooks, run by a real kernel; skipped with the reason where Jupyter's packages are missing."""

from __future__ import annotations

import importlib.util
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MISSING = [name for name in ("nbclient", "ipykernel") if importlib.util.find_spec(name) is None]

Outputs = list[dict[str, Any]]


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "notebook" in item.path.parts and MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}")


class Notebook:
    """A notebook that grows: `run` adds cells and executes them in one kernel."""

    def __init__(self, place: Path) -> None:
        import nbformat
        from nbclient import NotebookClient

        self.place = place
        self.new_cell = nbformat.v4.new_code_cell
        self.book = nbformat.v4.new_notebook()
        self.client = NotebookClient(self.book, timeout=50, resources={"metadata": {"path": place}})

    def run(self, code: str) -> Outputs:
        """Execute one more cell. Raises what nbclient raises for one that failed."""
        cell = self.new_cell(textwrap.dedent(code))
        self.book.cells.append(cell)
        self.client.execute_cell(cell, len(self.book.cells) - 1)
        return list(cell.outputs)


def printed(outputs: Outputs) -> str:
    return "".join(each["text"] for each in outputs if each["output_type"] == "stream")


def value(outputs: Outputs) -> str:
    """The value of the cell's last expression."""
    [found] = [each for each in outputs if each["output_type"] == "execute_result"]
    return str(found["data"]["text/plain"])


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a kernel, which finds this minimodal and leaves no files elsewhere."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MINIMODAL_BACKEND", "embedded")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ".jupyter"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return tmp_path


@pytest.fixture
def notebook(surroundings: Path) -> Iterator[Notebook]:
    book = Notebook(surroundings)
    with book.client.setup_kernel(cwd=str(surroundings), env=dict(os.environ)):
        book.run(PRELUDE)
        yield book


PRELUDE = """
import minimodal
app = minimodal.App("book")
"""
