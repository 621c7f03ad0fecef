"""Bytecode beside copies of sources: a container cannot write it, and to compile is much of its start.

What Python has compiled of the originals is taken where that is sure to be of the bytes copied. Format:
PEP 552, with a hash that nobody looks at, because a copy never changes.
"""

from __future__ import annotations

import os
import py_compile
import struct
import sys
from contextlib import suppress
from importlib.util import MAGIC_NUMBER, cache_from_source
from pathlib import Path

from .localfiles import stamp

_UNCHECKED = py_compile.PycInvalidationMode.UNCHECKED_HASH
_HEADER = MAGIC_NUMBER + struct.pack("<I8x", 1)


def write(original: Path, info: os.stat_result, copy: Path, shown_as: str) -> None:
    """Write the bytecode of `copy`, of this Python; nothing where the text is no Python, or where
    there is no room: it only saves time.

    Parameters: `info`, of the original before it was copied; `shown_as`, the path that tracebacks
    name where the code is run without being imported.
    """
    target = copy.parent / "__pycache__" / f"{copy.stem}.{sys.implementation.cache_tag}.pyc"
    code = _compiled(original, info)
    try:
        target.parent.mkdir(mode=0o755, exist_ok=True)
        if code is not None:
            target.write_bytes(_HEADER + code)
        else:
            py_compile.compile(
                str(copy), str(target), shown_as, quiet=2, invalidation_mode=_UNCHECKED
            )
    except OSError:
        with suppress(OSError):
            target.unlink()  # a part of it would be an error in the container


def _compiled(original: Path, info: os.stat_result) -> bytes | None:
    """The marshalled code of the file as it is, and was when `info` was taken."""
    cached = Path(cache_from_source(str(original)))
    try:
        data, written = cached.read_bytes(), cached.stat().st_mtime
        unchanged = stamp(original.stat()) == stamp(info)
    except OSError:
        return None
    if not unchanged or _is_doubtful(info, written):
        return None
    times = struct.pack("<4xII", int(info.st_mtime) & 0xFFFFFFFF, info.st_size & 0xFFFFFFFF)
    return data[16:] if data[:16] == MAGIC_NUMBER + times else None


def _is_doubtful(info: os.stat_result, written: float) -> bool:
    """Whether the file may have changed since its bytecode was `written` without showing it.

    Python compares sizes and whole seconds.
    """
    return written < int(info.st_mtime) + 1


def forget_doubtful(sources: list[Path]) -> None:
    """Remove bytecode that Python would take for up to date though another change comes at once."""
    for source in sources:
        try:
            cached = Path(cache_from_source(str(source)))
            if _is_doubtful(source.stat(), cached.stat().st_mtime):
                cached.unlink()
        except OSError:
            continue  # it has none, or is gone
