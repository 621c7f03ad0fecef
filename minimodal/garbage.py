"""How often Python looks for garbage cycles in processes that are ours: seldom.

Importing makes a hundred thousand objects that stay, and calls come and go by the thousand and leave
no cycles. By Python's default, after 700 objects, a tenth of both would go into looking for some.
"""

from __future__ import annotations

import gc

OBJECTS = 50_000  # that are made before Python looks for cycles among them


class RareCollections:
    """In its block, unless the program has chosen something rarer, or none."""

    def __enter__(self) -> None:
        self._before = gc.get_threshold()
        self._ours = (OBJECTS, *self._before[1:])
        if 0 < self._before[0] < OBJECTS:
            gc.set_threshold(*self._ours)

    def __exit__(self, *error: object) -> None:
        if gc.get_threshold() == self._ours:
            gc.set_threshold(*self._before)
