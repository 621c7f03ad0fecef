"""Users: whose calls these are, and how much of the platform each of them may have.

The engine gives each user a fair share of every function's containers, by weight. Who says nothing
is the user "default". A user is a name, not a login: what runs in this process is trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import context
from .errors import InvalidError
from .face import Both, both_function

MAX_NAME = 100


@contextmanager
def as_user(user: str, *, priority: int = 0) -> Iterator[None]:
    """Calls that are made in this block are this user's.

    Parameters: `priority` orders the user's own calls, the higher first; it takes nothing from
    other users. The block is of this thread or asyncio task alone. Calls that a function makes
    belong to the user of the call that it runs in, with that call's priority.

    Raises InvalidError for a name that is empty or longer than 100 characters, and in a container.
    """
    if context.container is not None:
        raise InvalidError(
            "as_user() works where calls begin, not inside a function: what a function calls belongs "
            "to the user of the call that it runs in"
        )
    named = isinstance(user, str) and user.isprintable() and 0 < len(user) <= MAX_NAME
    if not named:
        raise InvalidError(f"a user is a name of 1 to {MAX_NAME} characters, not {user!r}")
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > 1 << 31:
        raise InvalidError(f"priority is a whole number, the higher the sooner, not {priority!r}")
    token = context.acting.set((user, priority))
    try:
        yield
    finally:
        context.acting.reset(token)


async def _set_quota(
    user: str,
    *,
    weight: float = 1.0,
    max_running: int | None = None,
    max_queued: int | None = None,
) -> None:
    """Set the weight and the quotas of `user`.

    They are kept in this home until they are set again. `weight` 2 gets twice the share of 1;
    `max_running` and `max_queued` bound the user's calls in each engine, None leaves them unbounded. A
    call over `max_queued` raises ResourceExhaustedError. Raises InvalidError for a value that cannot be.
    """
    await context.ask(
        "user.set", user=user, weight=weight, max_running=max_running, max_queued=max_queued
    )


set_quota: Both[..., None] = both_function(_set_quota)
