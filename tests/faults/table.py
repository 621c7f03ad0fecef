"""The table of the fault suite: row, where, injected how, expected, seen.

A test shows a row by its name, `test_f44_…`, wherever it lies; in this folder its marker
`fault(id, injected=…, expected=…)` says more, and what it saw it says itself. `FAULTS` is the matrix;
a test holds that each row has a test, or a reason in `NOT_TESTED`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import pytest

FAULTS = dict(
    line.split(maxsplit=1)
    for line in """
F01 executor dies mid-call
F02 container init dies
F03 outer bwrap alone dies
F04 bwrap spawned from a short-lived thread
F05 container removed behind our back
F06 whole container frozen
F07 executor frozen
F08 segfault
F09 process exits
F10 OOM kill of an executor
F11 OOM kill of the container
F12 no cgroup: address-space limit
F13 fork bomb
F14 stdout flood
F15 odd logs
F16 log reader stalls
F17 grandchild outlives the call
F18 user code breaks the agent's descriptors
F19 user code forks and both return
F20 GIL held in C, signals blocked
F21 enter or import fails or hangs
F22 exit hangs or raises on stop
F23 no usable Python in the image
F24 buffer directory full
F25 consumer of a stream stops or stalls
F26 cancel in each phase
F27 limits on values
F28 SIGKILL at a random instant under load
F29 SIGKILL at each failpoint
F30 agents outlive the engine
F31 orphans that saw no EOF
F32 Ctrl-C in each phase
F33 SIGTERM, SIGHUP, closed terminal
F34 cancellation at every await
F35 a service raises
F36 out of descriptors
F37 out of threads or processes
F38 several engines, one home
F39 the lock outlives its owner
F40 engine frozen
F41 a call that kills the engine
F42 a user callback blocks
F43 the caller dies
F44 disk full on commit
F45 write error
F46 database locked by another program
F47 main file damaged
F48 WAL torn by a crash
F49 newer schema, older schema, killed mid-migration
F50 file removed or replaced while open
F51 acknowledged before it is on disk
F52 answer arrives twice or late
F53 no daemon, no permission, wrong DOCKER_HOST
F54 daemon frozen
F55 daemon killed, restarted
F56 daemon stopped politely
F57 its socket disappears
F58 API answers badly
F59 network broken
F60 daemon's disk full
F61 step 3 of 5 fails
F62 builder killed or disk full mid-step
F63 one layer asked for 50 times
F64 image removed behind our back
F65 package index down or slow
F66 sources change while being snapshotted
F67 hostile build context
F68 crash at each step of a volume commit
F69 disk full in commit or upload
F70 concurrent commits, reload while reading
F71 traversal and links
F72 odd files
F73 stored content damaged
F74 deleted or renamed while mounted
F75 leaks of secrets
F76 key file missing, wrong, lost in a rotation
F77 environment tricks
F78 port taken
F79 client leaves mid-request or mid-stream
F80 slow clients
F81 idle connections
F82 malformed HTTP
F83 hostile web page against loopback
F84 token guessing
F85 user's web app misbehaves
F86 deploy or reload under load
F87 wall clock jumps
F88 DST gap and overlap
F89 suspended laptop
F90 engine down at a tick
F91 no time-zone data; bad expression
F92 1 M queued, 10 k in flight
F93 request that can never fit; budget full
F94 home or /tmp full, read-only
F95 crash loop
F96 soak
F97 bad frames
F98 frames that lie
F99 shared buffers that lie
F100 malicious pickle
F101 many connections
F102 walls
F103 home deleted, moved, another user's, on NFS
F104 script edited while running
F105 engine of another version
F106 recursion without end
F107 bad input
""".strip().splitlines()
)

NOT_TESTED = {
    "F24": "there is no buffer directory: large values travel on the socket, and faster so",
    "F99": "there are no shared buffers: large values travel on the socket",
}

_NAME = re.compile(r"test_((?:f\d{2,3}_)+)(\w+)")
_WIDTHS = (14, 36, 44, 44)
_HEADS = ("fault", "injected", "expected", "seen")


class Row(NamedTuple):
    """What one test, on one backend, says of one row."""

    fault: str
    where: str
    injected: str
    expected: str


def rows_of(name: str, markers: Iterable[pytest.Mark] = ()) -> Iterator[Row]:
    """The rows that a test of that name shows; markers add words."""
    words = {marker.args[0]: marker.kwargs for marker in markers}
    named = _NAME.match(name)
    ids = [part.upper() for part in named[1].rstrip("_").split("_")] if named else []
    for fault in dict.fromkeys([*ids, *words]):
        said = words.get(fault, {})
        expected = said.get("expected") or (named[2].replace("_", " ") if named else name)
        yield Row(fault, "", said.get("injected") or FAULTS[fault], expected)


def describe(item: pytest.Item) -> None:
    """Note a test's rows for its report."""
    callspec = getattr(item, "callspec", None)
    chosen = callspec.params.values() if callspec else ()
    where = next((each for each in chosen if each in ("docker", "bubblewrap", "process")), "")
    name = getattr(item, "originalname", None) or item.name
    for row in rows_of(name, item.iter_markers("fault")):
        item.user_properties.append(("row", tuple(row._replace(where=str(where)))))


def show(reporter: Any, config: pytest.Config) -> None:
    """Print the table of the tests that ran, if any had a row: one line for each row and test."""
    found: dict[tuple[str, str], _Shown] = {}
    reports = [
        (outcome, report)
        for outcome in ("passed", "failed", "skipped", "xfailed", "error", "")
        for report in reporter.stats.get(outcome, ())
    ]
    for outcome, report in reports:
        for name, row in getattr(report, "user_properties", ()):
            if name == "row":
                row = Row(*row)
                test = report.nodeid.partition("[")[0]
                shown = found.setdefault((row.fault, test), _Shown(row, set(), {}, {}))
                shown.add(report, outcome, row.where)
    if not found:
        return
    for cells in (_HEADS, *(found[key].cells() for key in sorted(found, key=_order))):
        for line in _lines(cells):
            reporter.write_line(line)
    missing = [fault for fault in FAULTS if fault not in {fault for fault, _ in found}]
    if not config.option.keyword and not config.option.file_or_dir:
        for fault in missing:
            why = NOT_TESTED.get(fault, "no test ran")
            reporter.write_line(f"{fault:<14} | {FAULTS[fault]}: {why}")


class _Shown(NamedTuple):
    """One test of one row, over its parameters."""

    row: Row
    places: set[str]
    outcomes: dict[str, str]  # by node: passed, failed, skipped
    said: dict[str, str]

    def add(self, report: Any, outcome: str, where: str) -> None:
        if where:
            self.places.add(where[:1].upper())
        words = "; ".join(str(words) for name, words in report.user_properties if name == "seen")
        if words:
            self.said[report.nodeid] = words
        if outcome:
            worse = outcome != "passed" or report.nodeid not in self.outcomes
            self.outcomes[report.nodeid] = outcome if worse else self.outcomes[report.nodeid]

    def cells(self) -> tuple[str, ...]:
        counts = [
            f"{list(self.outcomes.values()).count(o)} {o}" for o in set(self.outcomes.values())
        ]
        seen = "; ".join((", ".join(sorted(counts)), *list(self.said.values())[:1]))
        places = " ".join(sorted(self.places))
        return f"{self.row.fault} {places}", self.row.injected, self.row.expected, seen


def _order(key: tuple[str, str]) -> tuple[int, str]:
    return int(key[0][1:]), key[1]


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
