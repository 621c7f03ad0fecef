"""Modal's module name for what may still change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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


T = TypeVar("T")


def http_server(
    port: int,
    *,
    proxy_regions: Sequence[str] = (),
    startup_timeout: float = 30,
    exit_grace_period: float | None = None,
    h2_enabled: bool = False,
) -> Callable[[type[T]], type[T]]:
    """Modal's older form of `@app.server`, below `@app.cls(…)`. No token is needed.

    `proxy_regions`, `exit_grace_period` and `h2_enabled` have no effect. Raises InvalidError for a
    wrong port, and for a class without `@enter`.
    """
    del proxy_regions, exit_grace_period, h2_enabled
    from .server import serving

    return serving("@http_server", port, startup_timeout, auth=False, target=None)


stop_fetching_inputs = both_function(_stop_fetching_inputs)


def __getattr__(name: str) -> Any:
    from .compat import ABSENT, absent

    if name in ABSENT:  # `clustered`
        return absent(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
