"""dumps and loads of users' values; the only importer of cloudpickle, and that lazily.

Protocol 5 with large buffers out of band. The C pickler is tried first; cloudpickle takes what it
refuses, and what is of a `__main__` that another process could not import by name.
"""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

from .errors import DeserializationError, ResourceExhaustedError, SerializationError
from .landing import writable
from .types import Buffer, Payload

main_is_importable = False
"""Set where containers alias `__main__` to the user's script, so its classes go by reference."""

OUT_OF_BAND_BYTES = 256 * 1024
MAX_BYTES = 1 << 30
FEW = 8

NO_ARGUMENTS = Payload(pickle.dumps(((), {}), protocol=5))


def dumps(value: Any, what: str = "the value") -> Payload:
    """Pickle a value. Raises SerializationError naming `what` and the type that refuses.

    What is larger than `MAX_BYTES` is refused here, before anybody else has to find memory for it.
    """
    payload = _dumps(value, what)
    if payload.nbytes > MAX_BYTES:
        raise _too_large(value, what, payload.nbytes)
    return payload


def _too_large(value: Any, what: str, nbytes: int) -> ResourceExhaustedError:
    kind = "" if type(value) is tuple else f" ({type(value).__qualname__})"  # arguments are a tuple
    return ResourceExhaustedError(
        f"{what}{kind} is {nbytes / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:,.0f} MB travel as one "
        "value. Write it to a Volume and pass its path, or send it in parts."
    )


def _dumps(value: Any, what: str) -> Payload:
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        whole = view.obj
        buffers.append(whole if type(whole) is bytes and len(whole) == view.nbytes else view)
        return False

    if value is None or type(value) in _SCALARS:
        return Payload(pickle.dumps(value, protocol=5))
    apart = _apart(value)
    try:
        data = pickle.dumps(apart, protocol=5, buffer_callback=keep)
        if main_is_importable or b"__main__" not in data:
            return Payload(data, tuple(buffers))
    except Exception:  # the C pickler refuses lambdas, closures, local classes: cloudpickle's part
        pass
    buffers.clear()
    try:
        import cloudpickle

        file = io.BytesIO()
        cloudpickle.CloudPickler(file, protocol=5, buffer_callback=keep).dump(apart)
        return Payload(file.getvalue(), tuple(buffers))
    except Exception as error:
        raise SerializationError(
            f"{what} ({type(value).__qualname__}) cannot be pickled: {error}. Pass plain data, or "
            "create the object inside the function."
        ) from error


_SCALARS = (bool, int, float)
_BULKY = (bytes, bytearray)


def _apart(value: Any) -> Any:
    """The value with its large bytes wrapped: they pickle in band even under protocol 5, and would be
    copied on both sides. Looked for where they are usual: the value itself, the arguments of a call,
    the first items of a tuple.
    """
    if type(value) is not tuple:
        bulky = type(value) in _BULKY and len(value) >= OUT_OF_BAND_BYTES
        return _Bulk(value) if bulky else value
    is_call = len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict
    if is_call:
        looked_at = (*value[0], *value[1].values()) if value[1] else value[0]
    else:
        looked_at = value[:FEW]
    bulks: dict[int, _Bulk] = {}  # by id: what is there twice travels once
    for each in looked_at:
        if type(each) in _BULKY and len(each) >= OUT_OF_BAND_BYTES:
            bulks[id(each)] = _Bulk(each)
    if not bulks:
        return value
    if not is_call:
        return tuple(bulks.get(id(each), each) for each in value)
    args, kwargs = value
    return (
        tuple(bulks.get(id(each), each) for each in args),
        {name: bulks.get(id(each), each) for name, each in kwargs.items()},
    )


class _Bulk:
    """Pickles as a call of its kind with its bytes: for those that arrive as `bytes`, no copy."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = value

    def __reduce__(self) -> Any:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def kept(payload: Payload) -> Payload:
    """The payload for one who keeps it when its maker goes on: what can be written to is copied."""
    if not payload.buffers:
        return payload
    buffers = (b if memoryview(b).readonly else writable(b) for b in payload.buffers)
    return Payload(payload.data, tuple(buffers))


def dumps_by_value(value: Any, what: str = "the function") -> Payload:
    """cloudpickle, for functions that no other process can import."""
    import cloudpickle

    try:
        return Payload(cloudpickle.dumps(value, protocol=5))
    except Exception as error:
        raise SerializationError(f"{what} cannot be pickled by value: {error}") from error


def loads(payload: Payload, what: str = "the value") -> Any:
    """Unpickle. Raises DeserializationError with the reason; the bytes must come from a trusted peer."""
    try:
        return pickle.loads(payload.data, buffers=payload.buffers)
    except Exception as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = f" Install {error.name!r} where the value is read, or return plain data."
        raise DeserializationError(
            f"{what} cannot be unpickled here: {type(error).__name__}: {error}.{hint}"
        ) from error


def python_version() -> str:
    """The minor version that by-value pickles are bound to: "3.11"."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"
