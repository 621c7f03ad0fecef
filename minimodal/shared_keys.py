"""Keys of a `Dict` by value: equal keys of any process are one entry, as in a Python dict.

`None`, numbers, text, bytes, and tuples and frozensets of these are equal where Python says so (`1`,
`1.0` and `True` are one key). Other keys are equal if their pickles are: instances of importable
classes, enums, paths, dates. A pickle may differ between two processes where it holds a set, or a
class that is defined in a function: such a key may not be found again.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from typing import Any

from .errors import InvalidError


def digest_of(key: Any) -> bytes:
    """What names the entry of `key`. Raises TypeError for one that is not hashable."""
    hash(key)
    return hashlib.sha256(_canonical(key)).digest()


def _canonical(key: Any) -> bytes:
    kind = type(key)
    if key is None:
        return b"N"
    if kind in (bool, int, float, complex):
        return _number(key)
    if kind is str:
        return b"s" + str(key).encode("utf-8", "surrogatepass")
    if kind is bytes:
        return b"b" + bytes(key)
    if kind is tuple:
        return b"t" + _framed([_canonical(item) for item in key])
    if kind is frozenset:
        return b"z" + _framed(sorted(_canonical(item) for item in key))
    return b"p" + _pickled(key)


def _number(key: Any) -> bytes:
    if isinstance(key, complex):
        if key.imag:
            return b"c" + struct.pack("<2d", key.real, key.imag)
        key = key.real
    if isinstance(key, float):
        if not key.is_integer():
            return b"f" + struct.pack("<d", key)
        key = int(key)
    return b"i" + b"%x" % int(key)


def _framed(parts: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(part)) + part for part in parts)


def _pickled(key: Any) -> bytes:
    # Without its memo: that depends on which parts happen to be the same object.
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.fast = True
    try:
        pickler.dump(key)
    except Exception as error:
        raise InvalidError(
            f"a {type(key).__qualname__} cannot be a key of a Dict: {error}. Use texts, numbers, or "
            "tuples of them."
        ) from error
    return file.getvalue()
