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
from .types import Buffer, Payload

main_is_importable = False
"""Set where containers alias `__main__` to the user's script, so its classes go by reference."""

OUT_OF_BAND_BYTES = 256 * 1024
MAX_BYTES = 1 << 30

NO_ARGUMENTS = Payload(pickle.dumps(((), {}), protocol=5))


def dumps(value: Any, what: str = "the value") -> Payload:
    """Pickle a value. Raises SerializationError naming `what` and the type that refuses.

    What is larger than `MAX_BYTES` is refused here, before anybody else has to find memory for it.
    """
    if type(value) is tuple and value and type(value[0]) is tuple:  # (args, kwargs)
        for argument in value[0]:  # bytes in a tuple would be copied before their size is known
            if type(argument) in _BULKY and len(argument) > MAX_BYTES:
                raise _too_large(argument, what, len(argument))
    payload = _dumps(value, what)
    if payload.nbytes > MAX_BYTES:
        raise _too_large(value, what, payload.nbytes)
    return payload


def _too_large(value: Any, what: str, nbytes: int) -> ResourceExhaustedError:
    return ResourceExhaustedError(
        f"{what} ({type(value).__qualname__}) is {nbytes / 1e6:,.0f} MB; at most "
        f"{MAX_BYTES / 1e6:,.0f} MB travel as one value. Write it to a Volume and pass its path, or "
        "send it in parts."
    )


def _dumps(value: Any, what: str) -> Payload:
    buffers: list[Buffer] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < OUT_OF_BAND_BYTES:
            return True
        buffers.append(view)
        return False

    if type(value) in _BULKY:
        return _bulk(value)
    if value is None or type(value) in _SCALARS:
        return Payload(pickle.dumps(value, protocol=5))
    try:
        data = pickle.dumps(value, protocol=5, buffer_callback=keep)
        if main_is_importable or b"__main__" not in data:
            return Payload(data, tuple(buffers))
    except Exception:  # the C pickler refuses lambdas, closures, local classes: cloudpickle's part
        pass
    buffers.clear()
    try:
        import cloudpickle

        file = io.BytesIO()
        cloudpickle.CloudPickler(file, protocol=5, buffer_callback=keep).dump(value)
        return Payload(file.getvalue(), tuple(buffers))
    except Exception as error:
        raise SerializationError(
            f"{what} ({type(value).__qualname__}) cannot be pickled: {error}. Pass plain data, or "
            "create the object inside the function."
        ) from error


_BULKY = (bytes, bytearray)
_SCALARS = (bool, int, float)


def _bulk(value: bytes | bytearray) -> Payload:
    """bytes pickle in band even under protocol 5: a large one would be copied twice."""
    if len(value) < OUT_OF_BAND_BYTES:
        return Payload(pickle.dumps(value, protocol=5))
    wrapped = _Bulk(type(value), pickle.PickleBuffer(value))
    return Payload(
        pickle.dumps(wrapped, protocol=5, buffer_callback=lambda _: False), (memoryview(value),)
    )


class _Bulk:
    def __init__(self, kind: type, buffer: pickle.PickleBuffer) -> None:
        self.kind, self.buffer = kind, buffer

    def __reduce__(self) -> Any:
        return self.kind, (self.buffer,)


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
