"""Large parts land where their values stay. Addresses are CPython's own affair, and the test's."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from minimodal.landing import HUGE_BYTES, TAIL_BYTES, Landing, writable

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def address(memory: memoryview | bytes) -> int:
    if isinstance(memory, bytes):
        return ctypes.cast(ctypes.c_char_p(memory), ctypes.c_void_p).value or 0
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def landed(nbytes: int, as_bytes: bool) -> tuple[int, memoryview | bytes]:
    """Where the last byte of a value arrived that was read directly, and the value."""
    landing = Landing(nbytes)
    last = 0
    while room := landing.room():
        landing.filled += len(room)
        last = address(room) + len(room)
        room.release()
    room.release()
    landing.put(memoryview(bytes(TAIL_BYTES)))
    value = landing.value(as_bytes)
    assert isinstance(value, bytes | memoryview)
    return last, value


@pytest.mark.parametrize("nbytes", [TAIL_BYTES + 1, 1 << 20, (1 << 20) + 2 * TAIL_BYTES, 64 << 20])
@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_value_is_where_its_bytes_arrived(nbytes: int, as_bytes: bool) -> None:
    last, value = landed(nbytes, as_bytes)
    assert address(value) + nbytes - TAIL_BYTES == last
    assert len(value) == nbytes
    assert type(value) is (bytes if as_bytes else memoryview)


@pytest.mark.skipif(not HUGE_PAGES.exists(), reason="this kernel has no transparent huge pages")
def test_large_values_ask_for_huge_pages_and_small_ones_do_not() -> None:
    large, small = writable(bytes(8 * HUGE_BYTES)), writable(bytes(HUGE_BYTES // 2))
    assert "hg" in flags_at(address(large) + HUGE_BYTES)
    assert large == bytes(8 * HUGE_BYTES)
    assert len(small) == HUGE_BYTES // 2


def flags_at(where: int) -> list[str]:
    """Flags of the mapping at an address, from /proc/self/smaps."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head, _, rest = line.partition(" ")
        if head == "VmFlags:":
            if inside:
                return rest.split()
        elif not head.endswith(":"):
            start, end = (int(each, 16) for each in head.split("-"))
            inside = start <= where < end
    raise AssertionError("no mapping there")
