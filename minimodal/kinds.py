"""What kind of function it is, said without `inspect` where that is possible.

Importing `inspect` is a tenth of a container's cold start, and most functions are plain ones.
"""

from __future__ import annotations

from types import FunctionType
from typing import TypeGuard

_GENERATOR, _COROUTINE, _ASYNC_GENERATOR = 0x20, 0x80, 0x200  # inspect.CO_…


def is_generator(function: object) -> bool:
    """Whether calling it gives items, with `for` or with `async for`."""
    if _is_plain(function):
        return bool(function.__code__.co_flags & (_GENERATOR | _ASYNC_GENERATOR))
    import inspect

    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def is_async(function: object) -> bool:
    """Whether it needs an event loop: a coroutine function or an async generator."""
    if _is_plain(function):
        return bool(function.__code__.co_flags & (_COROUTINE | _ASYNC_GENERATOR))
    import inspect

    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _is_plain(function: object) -> TypeGuard[FunctionType]:
    """Nothing but its code says what it is: no partial, no mark of inspect's."""
    return type(function) is FunctionType and not hasattr(function, "_is_coroutine_mark")
