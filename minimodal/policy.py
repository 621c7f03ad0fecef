"""What users say about retries, schedules and concurrency: data with Modal's names and bounds.

Owns the validation, so that a mistake is an InvalidError at the line that makes it, and the formula
of the retry delay. When a schedule fires is computed by the engine (engine/cron.py).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from . import context, cron_fields
from .errors import InvalidError
from .types import Batching, RetryPolicy, ScheduleSpec

T = TypeVar("T", bound="Callable[..., Any]")

SHORTEST_DELAY = 1.0
"""Seconds; no retry comes sooner, whatever the policy says (Modal's rule)."""

JITTER = 0.1
"""By how much of itself a delay may grow, so that calls that failed together don't return together."""

MAX_BATCH_SIZE = 1000
MAX_WAIT_MS = 600_000

_SECONDS = {"weeks": 604_800, "days": 86_400, "hours": 3_600, "minutes": 60, "seconds": 1}


@dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a failed call is tried again, and how long to wait before each time.

    `max_retries` counts those after the first attempt. Before the n-th retry it waits `initial_delay * backoff_coefficient ** (n - 1)` seconds, at least
    one and at most `max_delay`. A number in place of this object, `retries=3`, means fixed delays of one second.
    """

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        _whole("Retries: max_retries", self.max_retries, 0)
        _number("Retries: backoff_coefficient", self.backoff_coefficient, 1, 10)
        _number("Retries: initial_delay", self.initial_delay, 0, 60)
        _number("Retries: max_delay", self.max_delay, 1, 60)

    def policy(self) -> RetryPolicy:
        """The same as a record that the engine takes."""
        return RetryPolicy(
            self.max_retries, self.backoff_coefficient, self.initial_delay, self.max_delay
        )


def retry_policy(value: int | Retries | RetryPolicy) -> RetryPolicy:
    """The policy that `retries=value` means."""
    if isinstance(value, RetryPolicy):
        return value
    if isinstance(value, Retries):
        return value.policy()
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"retries must be a whole number or Retries(...), not {value!r}")
    return RetryPolicy(_whole("retries", value, 0), 1.0, SHORTEST_DELAY, 60.0)


def delay_before(policy: RetryPolicy, attempt: int, jitter: float = 0.0) -> float:
    """Seconds to wait before the `attempt`-th retry, counted from 1.

    Exponential backoff, clamped to [1, max_delay], then longer by up to a tenth. `jitter` is in
    [0, 1): the caller's random number, so that this stays a function.
    """
    try:
        grown = policy.initial_delay * policy.backoff_coefficient ** (attempt - 1)
    except OverflowError:
        grown = math.inf
    delay = max(SHORTEST_DELAY, min(grown, policy.max_delay))
    return delay * (1 + JITTER * jitter)


class Cron:
    """A schedule in cron's five fields, such as `Cron("0 9 * * 1-5", timezone="Europe/Madrid")`.

    `cron_string` has minute, hour, day of month, month and day of week, or is `@hourly`, `@daily`,
    `@weekly`, `@monthly` or `@yearly`. When clocks go forward, a time in the gap runs right after it;
    when they go back, a time in the repeated hour runs once. Raises InvalidError for what is no
    schedule or never comes.

    Of the ticks that were missed, because the machine slept or nothing ran, the last one runs late;
    none with `catch_up=False`. A tick whose predecessor still runs is left out unless `overlap=True`.
    """

    def __init__(
        self,
        cron_string: str,
        timezone: str = "UTC",
        *,
        catch_up: bool = True,
        overlap: bool = False,
    ) -> None:
        self.cron_string = cron_fields.check(cron_string)
        self.timezone = _timezone(timezone)
        self.catch_up, self.overlap = bool(catch_up), bool(overlap)

    def __repr__(self) -> str:
        return f"Cron({self.cron_string!r}, timezone={self.timezone!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cron) and other.spec() == self.spec()

    def __hash__(self) -> int:
        return hash(self.spec())

    def spec(self) -> ScheduleSpec:
        """The same as a record that the engine takes."""
        return ScheduleSpec(
            cron=self.cron_string,
            timezone=self.timezone,
            catch_up=self.catch_up,
            overlap=self.overlap,
        )


@dataclass(frozen=True, kw_only=True)
class Period:
    """A schedule that fires every so often, the first time one period after the deployment.

    `years` and `months` follow the calendar in UTC: a monthly one deployed on the 31st fires on the last
    day of shorter months. `weeks`, `days`, `hours`, `minutes` and `seconds` are added to them. Only
    `seconds` may have a fraction. `catch_up` and `overlap` are as in Cron. Raises InvalidError.
    """

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: float = 0
    catch_up: bool = True
    overlap: bool = False

    def __post_init__(self) -> None:
        for name in ("years", "months", "weeks", "days", "hours", "minutes"):
            _whole(f"Period: {name}", getattr(self, name), 0)
        _number("Period: seconds", self.seconds, 0, math.inf)
        spec = self.spec()
        if spec.months > 1200 or (spec.period or 0) > 100 * 366 * _SECONDS["days"]:
            raise InvalidError("Period: more than a hundred years are not supported")
        if not spec.months and not spec.period:
            raise InvalidError("Period() is no time at all: say how long, such as Period(hours=1)")

    def spec(self) -> ScheduleSpec:
        """The same as a record that the engine takes."""
        period = float(sum(getattr(self, name) * unit for name, unit in _SECONDS.items()))
        return ScheduleSpec(
            period=period,
            months=self.months + 12 * self.years,
            catch_up=bool(self.catch_up),
            overlap=bool(self.overlap),
        )


def concurrent(
    _no_parentheses: object = None,
    /,
    *,
    max_inputs: int | None = None,
    target_inputs: int | None = None,
) -> Callable[[T], T]:
    """Let one container work on several inputs at once; below `@app.function` or `@app.cls`.

    Async functions run as tasks of one loop, others in threads. The autoscaler aims at
    `target_inputs` per container and lets bursts grow to `max_inputs`, which is the same if not given.
    Raises InvalidError.
    """
    _parentheses("concurrent", "max_inputs=10", _no_parentheses)
    if max_inputs is None:
        max_inputs = target_inputs
    check_concurrency("@concurrent", max_inputs, target_inputs)

    def decorate(function: T) -> T:
        _check_target("concurrent", function)
        owner, _, _ = getattr(function, "__qualname__", "").rpartition(".")
        if inspect.isfunction(function) and owner and not owner.endswith("<locals>"):
            raise InvalidError(
                f"@concurrent on the method {function.__qualname__}: put it on the class"
            )
        return _attach(function, max_inputs=max_inputs, target_inputs=target_inputs)

    return decorate


def batched(
    _no_parentheses: object = None,
    /,
    *,
    max_batch_size: int | None = None,
    wait_ms: int | None = None,
) -> Callable[[T], T]:
    """Gather single calls into lists; below `@app.function`, or on a method.

    The function gets a list for each parameter and returns a list of the same length. A batch is run
    when it has `max_batch_size` members or its first has waited `wait_ms` milliseconds. Raises
    InvalidError, also for a function that is a generator or whose parameters have defaults.
    """
    _parentheses("batched", "max_batch_size=8, wait_ms=100", _no_parentheses)
    batching = check_batching("@batched", max_batch_size, wait_ms)

    def decorate(function: T) -> T:
        _check_target("batched", function)
        name = getattr(function, "__qualname__", repr(function))
        if inspect.isclass(function):
            raise InvalidError(f"@batched on the class {name}: put it on one of its methods")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidError(f"@batched: {name} is a generator; it must return a list")
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default is not parameter.empty:
                raise InvalidError(
                    f"@batched: {parameter.name} of {name} has a default, and defaults can't be batched"
                )
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise InvalidError(
                    f"@batched: {name} must name its parameters, not take *{parameter.name}"
                )
        return _attach(function, batching=batching)

    return decorate


def check_concurrency(what: str, max_inputs: int | None, target_inputs: int | None) -> None:
    """Raises InvalidError, naming `what`, for values that @concurrent does not take."""
    if max_inputs is None:
        raise InvalidError(f"{what} needs max_inputs, such as max_inputs=10")
    _whole(f"{what}: max_inputs", max_inputs, 1)
    if target_inputs is not None:
        _whole(f"{what}: target_inputs", target_inputs, 1)
        if target_inputs > max_inputs:
            raise InvalidError(
                f"{what}: target_inputs={target_inputs} is more than max_inputs={max_inputs}"
            )


def check_batching(what: str, max_batch_size: int | None, wait_ms: int | None) -> Batching:
    """The batching that is meant. Raises InvalidError, naming `what`."""
    if max_batch_size is None or wait_ms is None:
        raise InvalidError(f"{what} needs both max_batch_size and wait_ms")
    _whole(f"{what}: max_batch_size", max_batch_size, 1, MAX_BATCH_SIZE)
    _whole(f"{what}: wait_ms", wait_ms, 0, MAX_WAIT_MS)
    return Batching(max_batch_size, wait_ms / 1000)


def _parentheses(name: str, example: str, given: object) -> None:
    if given is not None:
        raise InvalidError(f"@{name} takes named arguments only: write @{name}({example})")


def _check_target(name: str, function: object) -> None:
    if not (inspect.isfunction(function) or inspect.isclass(function)):
        raise InvalidError(
            f"@{name} can't decorate {function!r}: it goes directly above the function or class, "
            "below @app.function, @app.cls or @method"
        )


def _attach(function: T, **options: object) -> T:
    """Add to the options of this very object: a subclass must not change its parent's."""
    known = getattr(function, "__minimodal_options__", {})
    function.__minimodal_options__ = {**known, **options}  # type: ignore[attr-defined]  # our mark
    return function


def _timezone(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidError(
            f'Cron: timezone must be a name such as "Europe/Madrid", not {name!r}; left out it is UTC'
        )
    # A slim image may lack the data, and nothing is computed there: the host has checked.
    if name == "UTC" or not context.is_local():
        return name
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        if not zoneinfo.available_timezones():
            raise InvalidError(
                f"Cron: timezone {name!r} can't be looked up, because this system has no time zone "
                "data: install the package tzdata"
            ) from error
        raise InvalidError(f"Cron: there is no timezone {name!r}") from error
    return name


def _number(what: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        upper = f" and at most {high:g}" if high < math.inf else ""
        raise InvalidError(f"{what} must be a number of at least {low:g}{upper}, not {value!r}")


def _whole(what: str, value: object, low: int, high: int | None = None) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or value < low
        or (high is not None and value > high)
    ):
        upper = f" and at most {high}" if high is not None else ""
        raise InvalidError(f"{what} must be a whole number of at least {low}{upper}, not {value!r}")
    return value
