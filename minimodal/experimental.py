"""Modal's module name for what may still change."""

from __future__ import annotations

from . import context
from .errors import InvalidError
from .face import both_function


async def _stop_fetching_inputs() -> None:
    """Give this container no further inputs; it ends, after `@exit`, when it has done those it has.

    For a process that is worn out: a leak, a broken device. Raises InvalidError outside a container.
    """
    if context.container is None:
        raise InvalidError("stop_fetching_inputs() works inside a function's container")
    await context.ask("container.retire")


stop_fetching_inputs = both_function(_stop_fetching_inputs)
