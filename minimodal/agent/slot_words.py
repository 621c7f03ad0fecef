"""The words that a supervisor and its executors share in memory, four for each slot.

A signal says nothing about which call it is meant for, and a frame is not read while user code runs;
a word in shared memory is seen at once. Each word has one writer.
"""

from __future__ import annotations

import struct
from mmap import mmap

_WORD = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")
_SLOT_BYTES = 4 * _WORD.size
MAX_SLOTS = 512
SHARED_BYTES = MAX_SLOTS * _SLOT_BYTES

CUT = 71  # exit code of an executor that can no longer reach the engine

INTERRUPT = 0  # supervisor: the call that the signal is meant for
BEGUN = 8  # executor: the last call that it took in hand
BARRIER = 16  # supervisor, two words: calls from the first up to below the second are given back


class SlotWords:
    """The words of one slot."""

    __slots__ = ("_base", "_shared")

    def __init__(self, shared: mmap, slot: int) -> None:
        self._shared = shared
        self._base = slot * _SLOT_BYTES

    def get(self, word: int) -> int:
        value: int = _WORD.unpack_from(self._shared, self._base + word)[0]
        return value

    def set(self, word: int, *values: int) -> None:
        for at, value in enumerate(values):
            _WORD.pack_into(self._shared, self._base + word + at * _WORD.size, value)

    def begin(self, seq: int) -> bool:
        """Say that `seq` begins; False if it was recalled before it could."""
        _WORD.pack_into(self._shared, self._base + BEGUN, seq)
        first, below = _PAIR.unpack_from(self._shared, self._base + BARRIER)
        return not first <= seq < below
