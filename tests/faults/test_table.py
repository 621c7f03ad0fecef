"""The table names no test that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.table import ELSEWHERE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("row", ELSEWHERE)
def test_a_row_tested_elsewhere_has_its_test(row: str) -> None:
    path, name = ELSEWHERE[row].split("::")
    assert f"def {name}(" in (ROOT / path).read_text()
