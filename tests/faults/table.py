"""The table of the fault suite: row, where, injected how, expected, seen.

A test's row is its marker `fault(id, injected=…, expected=…)`; what it saw it says itself. Rows of
the matrix whose tests lie beside the code that they hurt are listed here by the test's name, and a
test checks that those exist.
"""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

ELSEWHERE = {
    "F12": "tests/backends/test_walls.py::test_f102_f12_the_same_for_an_ordinary_user",
    "F13": "tests/backends/test_containers.py::test_f13_a_fork_bomb_hits_the_limit_and_nobody_else",
    "F28": "tests/engine/test_store_crash.py::test_f28_killed_at_a_random_instant_again_and_again",
    "F29": "tests/engine/test_store_crash.py::test_f29_killed_at_each_failpoint",
    "F39": "tests/engine/test_engine_lock.py::test_f39_a_forked_child_does_not_keep_its_dead_parent_alive",
    "F41": "tests/durability/test_restart.py::test_a_call_that_kills_its_engine_ends_in_the_dead_letters",
    "F94": "tests/engine/test_store_faults.py::test_f94_a_read_only_home_is_refused_with_its_path",
}

_WIDTHS = (10, 40, 52, 52)
_HEADS = ("fault", "injected", "expected", "seen")


def describe(item: pytest.Item) -> None:
    """Note a test's row for its report."""
    marker = item.get_closest_marker("fault")
    if marker is None:
        return
    callspec = getattr(item, "callspec", None)
    where = callspec.params.get("platform", "") if callspec else ""
    item.user_properties.append(("row", (marker.args[0], str(where))))
    item.user_properties.append(("injected", marker.kwargs["injected"]))
    item.user_properties.append(("expected", marker.kwargs["expected"]))


def show(reporter: Any) -> None:
    """Print the table of the tests that ran, if any had a row."""
    rows: dict[str, tuple[str, ...]] = {}
    for outcome in ("passed", "failed", "skipped", "xfailed"):
        for report in reporter.stats.get(outcome, ()):
            row = _row(report, outcome)
            if row is not None and (report.when == "teardown" or report.nodeid not in rows):
                rows[report.nodeid] = row
    # A report of a passed teardown is not among the stats: the last words come with "".
    for report in reporter.stats.get("", ()):
        row = _row(report, "passed")
        if row is not None and report.when == "teardown" and report.nodeid in rows:
            rows[report.nodeid] = (*rows[report.nodeid][:3], row[3])
    if not rows:
        return
    reporter.write_line("")
    for line in _lines(_HEADS):
        reporter.write_line(line)
    for row in sorted(rows.values()):
        for line in _lines(row):
            reporter.write_line(line)
    for row_id, test in sorted(ELSEWHERE.items()):
        reporter.write_line(f"{row_id:<10} tested by {test}")


def _row(report: Any, outcome: str) -> tuple[str, ...] | None:
    noted = dict(property for property in report.user_properties if property[0] != "seen")
    if "row" not in noted:
        return None
    row_id, where = noted["row"]
    seen = "; ".join(words for name, words in report.user_properties if name == "seen")
    if outcome != "passed":
        seen = f"{outcome.upper()} {seen}"
    head = f"{row_id} {where[:5]}"
    return head, noted["injected"], noted["expected"], seen


def _lines(cells: tuple[str, ...]) -> list[str]:
    columns = [
        textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, _WIDTHS, strict=True)
    ]
    height = max(map(len, columns))
    padded = [column + [""] * (height - len(column)) for column in columns]
    return [
        " | ".join(f"{part:<{width}}" for part, width in zip(line, _WIDTHS, strict=True)).rstrip()
        for line in zip(*padded, strict=True)
    ]
