"""What containers print while a test runs, for its report and for its assertions."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from .leaks import Leak

if TYPE_CHECKING:
    from .engine.events import Event

KEPT = 1000  # lines for the report of one test


class ContainerLogs:
    """Filled by the engine's thread, read by tests."""

    def __init__(self) -> None:
        self.shown: deque[str] = deque(
            maxlen=KEPT
        )  # with the functions' names, and what went wrong
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._living: dict[str, str] = {}
        self._changed = threading.Condition()

    @property
    def lines(self) -> list[str]:
        """What functions printed since the test began, without their names."""
        with self._changed:
            return list(self._lines)

    def wait_for(self, text: str, within: float = 10.0) -> list[str]:
        """Wait for a line that contains `text`. Raises TimeoutError with the lines that came."""
        with self._changed:
            if not self._changed.wait_for(lambda: any(text in x for x in self._lines), within):
                raise TimeoutError(f"{text!r} was not printed; there was {list(self._lines)}")
            return list(self._lines)

    def clear(self) -> None:
        """A new test begins."""
        with self._changed:
            self._lines.clear()
            self.shown.clear()

    def living(self) -> list[Leak]:
        """Containers that started and have not ended."""
        return [Leak("containers", f"{k} of {name}") for k, name in sorted(self._living.items())]

    def event(self, event: Event) -> None:
        """Take an event; called on the engine's loop."""
        with self._changed:
            self._take(event)
            self._changed.notify_all()

    def _take(self, event: Event) -> None:
        fields = event.fields
        match event.kind:
            case "log":
                self._lines.append(fields["text"])
                self.shown.append(f"{event.name} | {fields['text']}")
            case "image.build":
                self.shown.append(f"image {event.name}: {fields['text']}")
            case "container.starting":
                self._living[fields["container"]] = event.name
            case "container.stopped":
                self._living.pop(fields["container"], None)
                if not fields["asked"]:
                    self.shown.append(f"{event.name}: a container ended: {fields['reason']}")
