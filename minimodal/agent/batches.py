"""A batch: the arguments of single calls as lists, and the list of results taken apart again."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minimodal.errors import InvalidError

if TYPE_CHECKING:
    from .executor import Input


class Batch:
    """Of one run of a @batched function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.name = getattr(function, "__qualname__", "the function")
        self.members: list[Input] = []
        self._signature = inspect.signature(function)
        self._columns: dict[str, list[Any]] = {name: [] for name in self._signature.parameters}

    def add(self, one: Input, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take a member in. Raises TypeError where its arguments are not the function's."""
        bound = self._signature.bind(*args, **kwargs)
        for name, column in self._columns.items():
            column.append(bound.arguments[name])  # @batched allows no defaults
        self.members.append(one)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with: a list for each parameter."""
        bound = inspect.BoundArguments(self._signature, OrderedDict(self._columns))
        return bound.args, bound.kwargs


def results_of(value: Any, batch: Batch) -> list[Any]:
    """The results of the members. Raises InvalidError where the function did not return a list of them."""
    count = len(batch.members)
    if not isinstance(value, list):
        raise InvalidError(
            f"{batch.name} is @batched and must return a list of {count} results, not "
            f"{type(value).__name__}"
        )
    if len(value) != count:
        raise InvalidError(
            f"{batch.name} returned {len(value)} results for a batch of {count}; the list must have one "
            "for each input, in their order"
        )
    return value
