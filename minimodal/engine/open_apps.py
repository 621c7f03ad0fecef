"""`App`: an app that is open in an engine."""

from __future__ import annotations

from typing import NamedTuple


class App(NamedTuple):
    id: str
    name: str
    deployed: bool
    version: int | None  # of a deployed one
    opened_at: float  # wall clock; of a deployed one, when its version was made
