"""What `FunctionCall.get_call_graph()` gives: a call and the calls that it made, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from .types import CallState


class InputStatus(IntEnum):
    """How far an input is, with Modal's names and numbers."""

    PENDING = 0  # it waits, or runs
    SUCCESS = 1
    FAILURE = 2  # it raised, or was lost with its container too often
    INIT_FAILURE = 3  # its container could not start
    TERMINATED = 4  # cancelled
    TIMEOUT = 5


_STATUS = {
    CallState.OK: InputStatus.SUCCESS,
    CallState.ERROR: InputStatus.FAILURE,
    CallState.LOST: InputStatus.FAILURE,
    CallState.CANCELLED: InputStatus.TERMINATED,
    CallState.TIMEOUT: InputStatus.TIMEOUT,
}


@dataclass
class InputInfo:
    """One call of the tree. `task_id`: its container while it runs; `children`: what it called."""

    input_id: str
    function_call_id: str
    task_id: str
    status: InputStatus
    function_name: str
    module_name: str
    children: list[InputInfo] = field(default_factory=list)


def graph_of(roots: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> list[InputInfo]:
    """The tree above the calls `roots`, made of the engine's rows; its top stands for the caller."""
    infos = {row["id"]: _info(row) for row in rows}
    wanted = set(roots)
    top = InputInfo("", "", "", InputStatus.PENDING, "", "")
    for row in rows:
        above = top if row["id"] in wanted else infos.get(row["parent"])
        if above is not None:
            above.children.append(infos[row["id"]])
    return [top]


def _info(row: Mapping[str, Any]) -> InputInfo:
    name = row["function"].partition("/")[2]
    status = _STATUS.get(CallState(row["state"]), InputStatus.PENDING)
    if status is InputStatus.FAILURE and row["error"].startswith("StartupError"):
        status = InputStatus.INIT_FAILURE
    return InputInfo(
        input_id="in-" + row["id"][3:],
        function_call_id=row["id"],
        task_id=row.get("container") or "",
        status=status,
        function_name=f"{name}.{row['method']}" if row["method"] else name,
        module_name=row.get("module") or "",
    )
