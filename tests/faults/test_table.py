"""Every row of the matrix has a test, or a reason why not."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.faults.table import FAULTS, NOT_TESTED, rows_of

TESTS = Path(__file__).resolve().parents[1]


def _marked(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    """Ids in its `pytest.mark.fault("F01", …)`."""
    return {
        str(call.args[0].value)
        for call in function.decorator_list
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "fault"
        and isinstance(call.args[0], ast.Constant)
    }


def covered() -> set[str]:
    found: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found |= {row.fault for row in rows_of(node.name)} | _marked(node)
    return found


def test_every_row_has_a_test_or_a_reason() -> None:
    assert covered() | NOT_TESTED.keys() == FAULTS.keys()
    assert not covered() & NOT_TESTED.keys()
    assert len(FAULTS) == 107


@pytest.mark.parametrize(
    ("name", "faults"),
    [("test_f02_x", ["F02"]), ("test_f49_f103_x", ["F49", "F103"]), ("test_of_x", [])],
)
def test_a_name_says_its_rows(name: str, faults: list[str]) -> None:
    assert [row.fault for row in rows_of(name)] == faults
