"""What a container uses, as its supervisor says with each heartbeat. For people; nothing depends on it."""

from __future__ import annotations

import math

SANE = 1 << 50  # above any number of bytes or seconds that is true


class Usage:
    """The last word of one container. A hostile one may say anything, and is believed only so far."""

    __slots__ = ("_seconds", "_then", "cpu", "memory")

    def __init__(self) -> None:
        self.cpu: float | None = None  # cores in use, since the word before
        self.memory: int | None = None  # bytes that are resident, shared pages counted each time
        self._seconds = 0.0
        self._then: float | None = None

    def add(self, words: str, now: float) -> None:
        """`words`: seconds of cpu time so far and resident bytes; empty where it cannot tell."""
        seconds_text, _, memory = words.partition(" ")
        try:
            seconds, self.memory = float(seconds_text), min(int(memory), SANE)
        except ValueError:
            return
        if not math.isfinite(seconds):
            return
        if self._then is not None and now > self._then:
            self.cpu = min(max(0.0, (seconds - self._seconds) / (now - self._then)), 10_000.0)
        self._seconds, self._then = seconds, now
