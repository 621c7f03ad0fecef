"""`Landing`: the memory that a large part of a frame is received into.

What a large value costs on its way is not the socket but fresh memory: for 100 MB 22 ms against 40
for the first touch of its 25,600 pages, and as much again for each further copy. So a part lands
where its value will stay, and in huge pages where the kernel has them (12 ms for copy and touch).
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Callable
from functools import cache

from .types import Buffer

BELIEVED_BYTES = 1 << 20  # must have arrived before memory for more is taken
HUGE_BYTES = 4 << 20
TAIL_BYTES = 4096


class Landing:
    """Room for a part of `nbytes`, of which `filled` have arrived. A claimed length costs nothing."""

    __slots__ = ("_file", "_view", "filled", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        self.filled = 0
        self._file, self._view = _fresh(min(nbytes, BELIEVED_BYTES))

    def room(self) -> memoryview:
        """Where the next bytes may be read into; whoever does adds to `filled`. Empty near the end.

        A transport still holds what we lent when it tells of the bytes in it, and while anybody
        holds the memory `value` would have to copy it: the last bytes come by `put`.
        """
        view = self._grown()
        return view[self.filled : -TAIL_BYTES if len(view) == self.nbytes else None]

    def put(self, data: memoryview) -> int:
        """Copy bytes in as far as they belong here, and count them as filled; how many they were."""
        view = self._grown()
        n = min(len(view) - self.filled, len(data))
        view[self.filled : self.filled + n] = data[:n]
        self.filled += n
        return n

    def value(self, as_bytes: bool) -> Buffer:
        """What has landed, as `bytes` or as memory to write to; not copied, and only once."""
        if not as_bytes:
            return self._view
        self._view.release()
        return self._file.getvalue()

    def _grown(self) -> memoryview:
        if self.filled == len(self._view) < self.nbytes:
            believed = self._view
            self._file, self._view = _fresh(self.nbytes)
            self._view[: self.filled] = believed
        return self._view


def writable(data: Buffer) -> memoryview:
    """A copy that may be written to."""
    source = memoryview(data).cast("B")
    view = _fresh(source.nbytes)[1]
    view[:] = source
    return view


def _fresh(nbytes: int) -> tuple[io.BytesIO, memoryview]:
    """A BytesIO lets us write into the `bytes` that it gives away; these are calloc's, untouched."""
    file = io.BytesIO(bytes(nbytes))
    view = file.getbuffer()
    if nbytes >= HUGE_BYTES:
        _advise()(view)
    return file, view


@cache
def _advise() -> Callable[[memoryview], object]:
    """What asks for huge pages, or does nothing where there are none or no ctypes."""
    try:
        import ctypes

        advice = mmap.MADV_HUGEPAGE
        madvise = ctypes.CDLL(None).madvise
    except (ImportError, AttributeError, OSError):
        return len
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def advise(view: memoryview) -> None:
        start = ctypes.addressof(ctypes.c_char.from_buffer(view))
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = (start + len(view)) // mmap.PAGESIZE * mmap.PAGESIZE
        madvise(first, last - first, advice)  # refused: they are not wanted here

    return advise
