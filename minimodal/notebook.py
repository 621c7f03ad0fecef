"""A notebook hosts the platform: output under the cell that called, progress of maps as HTML.

Everything is off outside an IPython kernel, and nothing needs widgets: a picture is plain HTML that is
replaced under its display id, so it stays in the notebook's file as it was at the end.
"""

from __future__ import annotations

import contextvars
import html
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import context
from .progress import MapState

if TYPE_CHECKING:
    from .engine.calls import LiveCall
    from .output import CellOf

REMEMBERED = 10_000  # calls whose cell is known; later output of older ones goes to the last cell
PACE = 0.1  # seconds between two pictures
MAX_DEPTH = 64  # of nested calls


def is_kernel() -> bool:
    """Whether this process is the kernel of a notebook, and not IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def open_cells(live_of: Callable[[str], LiveCall | None]) -> CellOf:
    """Remember from now on which cell made which call. `live_of`: the engine's view of a call."""
    cells = Cells(live_of)
    context.on_call = cells.called
    context.map_view = MapBar
    return cells.of


class Cells:
    """The contexts in which calls were made; the kernel keeps there which cell runs."""

    def __init__(self, live_of: Callable[[str], LiveCall | None]) -> None:
        self._live_of = live_of
        self._contexts: OrderedDict[str, contextvars.Context] = OrderedDict()
        self._lock = threading.Lock()

    def called(self, call: str) -> None:
        with self._lock:
            self._contexts[call] = contextvars.copy_context()
            if len(self._contexts) > REMEMBERED:
                self._contexts.popitem(last=False)

    def of(self, call: str) -> contextvars.Context | None:
        """Of the call, or of the one here that led to it. Runs on the engine's loop."""
        for _ in range(MAX_DEPTH):
            found = self._contexts.get(call)
            live = self._live_of(call)
            if found is not None or live is None or live.call.parent is None:
                return found
            call = live.call.parent
        return None


class MapBar:
    """A `context.MapView`: one line with a bar, replaced in its place."""

    def __init__(self, function: str, total: int | None) -> None:
        now = time.time()
        self._state = MapState(function, total, now, said_at=now)
        self._handle = _display(self._picture(now), None)

    def update(self, done: int, failed: int) -> None:
        now = time.time()
        self._state.count(done, failed, now)
        if now - self._state.said_at >= PACE:
            self._show(now)

    def close(self) -> None:
        self._show(time.time())

    def _show(self, now: float) -> None:
        self._state.said_at = now
        _display(self._picture(now), self._handle)

    def _picture(self, now: float) -> dict[str, str]:
        state = self._state
        text = f"{state.function}: {state.words(now)}"
        whole = max(state.total or state.done, 1)
        bar = f'<progress max="{whole}" value="{min(state.done, whole)}"></progress> '
        page = f'<div class="minimodal-map">{bar}{html.escape(text)}</div>'
        return {"text/html": page, "text/plain": text}


def _display(data: dict[str, str], handle: Any) -> Any:
    """Show it, or show it in the place of an earlier one; gives the handle for that."""
    from IPython.display import display

    if handle is None:
        return display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    handle.update(data, raw=True)
    return handle
