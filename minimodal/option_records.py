"""The records that decorators make of their arguments: apart from spec_types.py, because a container
needs them where the script has retries, batches, a schedule or classes.

Import them from `minimodal.types`, which loads this module on demand.
"""

from __future__ import annotations

from typing import NamedTuple


class RetryPolicy(NamedTuple):
    """Data of `minimodal.Retries`; seconds. See policy.py for the delay's formula."""

    max_retries: int = 0
    backoff_coefficient: float = 1.0
    initial_delay: float = 1.0
    max_delay: float = 60.0


class Batching(NamedTuple):
    max_batch_size: int
    wait: float  # seconds that the first member of a batch waits for others


class ScheduleSpec(NamedTuple):
    """Data of `Cron` (expression, timezone) or `Period` (seconds and calendar months)."""

    cron: str | None = None
    timezone: str = "UTC"
    period: float | None = None
    months: int = 0  # of a Period, besides its seconds
    catch_up: bool = True  # the last of several missed ticks runs late; else none of them
    overlap: bool = False  # a tick runs also while the call of the one before still does


class ClassParameter(NamedTuple):
    name: str
    type: str  # "str", "int", "bool" or "bytes"
    default: str | None = None  # as text (parameters.py); None: a value must be given


class ClassShape(NamedTuple):
    """What can be said of a class without its code: for those who look it up by name."""

    methods: tuple[tuple[str, bool], ...] = ()  # name, whether it is a generator
    parameters: tuple[ClassParameter, ...] | None = ()  # None: it has an __init__ of its own

    @property
    def needs_arguments(self) -> bool:
        return any(each.default is None for each in self.parameters or ())
