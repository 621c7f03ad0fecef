"""The objects of a home without an engine: what `minimodal volume`, `secret`, … work on.

It answers the same requests by the same code, and starts nothing that could run a function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minimodal.errors import NotRunningError

from .ops import Ops
from .peer import Cork

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from minimodal.protocols import Done
    from minimodal.types import Call


class Offline:
    """Has of an `Engine` what `LoopClient` and `Request` use."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        self.ops = Ops()
        self.cork = Cork()

    def run(self, call: Call, done: Done) -> None:
        raise NotRunningError("no engine runs here: functions need one, see `minimodal run`")

    def cancel(self, call_id: str) -> None:
        """Nothing runs."""
