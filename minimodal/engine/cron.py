"""When schedules fire: pure functions of (schedule, last tick, now).

Owns the one import of croniter and the rules of clocks that change. Times are wall-clock seconds since
the epoch (`Clock.now`). Nothing here keeps state: the caller stores `Due.last`, in one transaction with
the call that it makes of a tick.

Daylight saving, as in Debian's cron: a fixed time that falls into the gap runs once, right after it; in
the repeated hour it runs once, the first time; `*` in minute or hour follows real time through both.
croniter alone runs a fixed time twice in the repeated hour; the filter in `_cron_after` is what makes it right,
checked against cronsim in the tests.

A clock that jumps back by up to `REWIND` repeats no tick. By more it is taken as corrected: the
schedule goes on from the new time (Debian's cron has the same rule and the same three hours). A clock
that jumps forward, a suspended machine and an engine that was down all look alike: ticks were
missed. However many, at most one is made up for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum
from typing import NamedTuple
from zoneinfo import ZoneInfo

from minimodal.errors import InvalidError
from minimodal.types import ScheduleSpec

REWIND = 3 * 3600.0
"""Seconds. A larger step back of the wall clock is a correction, and the schedule follows it."""

LATE = 60.0
"""Seconds after its time until which a tick is on time and not missed."""

UTC = timezone.utc


class Missed(Enum):
    """What becomes of ticks whose time passed while nobody could run them."""

    SKIP = "skip"  # they are gone; the next one runs at its time
    CATCH_UP = "catch up"  # the last of them runs now, once


class Due(NamedTuple):
    """What to do now.

    `tick`: the time of the tick to run, or None. `last`: what to remember as the last tick, whether
    or not one runs. `next`: when to look again. `missed`: whether ticks were left out; say so in the log.
    """

    tick: float | None
    last: float
    next: float
    missed: bool = False


def due(
    spec: ScheduleSpec,
    last: float,
    now: float,
    policy: Missed = Missed.CATCH_UP,
    *,
    anchor: float | None = None,
) -> Due:
    """What of a schedule is to run now. O(log(now - last)): a missed year isn't enumerated.

    `last`: the last tick that was dealt with; at first the time of the deployment. `anchor`: the time
    of the deployment, from which a Period counts; left out it is `last`.
    """
    origin = last if anchor is None else anchor
    if now < last - REWIND:
        return Due(None, now, next_after(spec, now, anchor=origin))
    first = next_after(spec, last, anchor=origin)
    if first > now:
        return Due(None, last, first)
    latest = _latest(spec, first, now, origin)
    runs = policy is Missed.CATCH_UP or now - latest <= LATE
    upcoming = next_after(spec, latest, anchor=origin)
    return Due(latest if runs else None, latest, upcoming, missed=latest > first or not runs)


def occurrences(
    spec: ScheduleSpec, after: float, *, anchor: float | None = None
) -> Iterator[float]:
    """The ticks later than `after`, in order, without end."""
    origin = after if anchor is None else anchor
    while True:
        after = next_after(spec, after, anchor=origin)
        yield after


def next_after(spec: ScheduleSpec, after: float, *, anchor: float | None = None) -> float:
    """The first tick later than `after`."""
    if spec.cron is not None:
        return _cron_after(spec.cron, _zone(spec.timezone), after)
    return _period_after(spec, after, after if anchor is None else anchor)


def _latest(spec: ScheduleSpec, first: float, now: float, anchor: float) -> float:
    """The last tick up to `now`, by bisection; `first` is one. Calendars have no way backwards."""
    low, high = first, now
    while (following := next_after(spec, low, anchor=anchor)) <= now:
        low = following
        middle = low + (high - low) / 2
        tick = next_after(spec, middle, anchor=anchor)
        if tick <= now:
            low = tick
        else:
            high = middle
    return low


def _cron_after(expression: str, zone: tzinfo, after: float) -> float:
    from croniter import croniter

    minute, hour = expression.split()[:2]
    fixed = not (minute.startswith("*") or hour.startswith("*"))
    try:
        ticks = croniter(expression, datetime.fromtimestamp(after, UTC).astimezone(zone))
        while True:
            # Through UTC and back: this sets `fold` right in the repeated hour.
            tick = ticks.get_next(datetime).astimezone(UTC).astimezone(zone)
            if fixed and tick.fold:
                continue  # the repeated hour: it ran the first time
            if not fixed and not croniter.match(expression, tick.replace(tzinfo=None)):
                continue  # croniter moved it out of the gap, where real time has no such tick
            moment: float = tick.timestamp()
            if moment > after:
                return moment
    except (ValueError, KeyError) as error:
        raise InvalidError(f"schedule {expression!r} can't be computed: {error}") from error


def _period_after(spec: ScheduleSpec, after: float, anchor: float) -> float:
    period = spec.period or 0.0
    if spec.months:
        # By mean months, and a little early: the loop below only goes up.
        index = math.floor((after - anchor) / (spec.months * 2_629_746 + period)) - 2
    elif period > 0:
        index = math.floor((after - anchor) / period) - 1
    else:
        raise InvalidError("a schedule needs a cron expression or a period longer than zero")
    while (tick := _period_tick(spec, anchor, index)) <= after:
        index += 1
    return tick


def _period_tick(spec: ScheduleSpec, anchor: float, index: int) -> float:
    """The `index`-th tick, from the anchor each time, so that neither days nor rounding drift."""
    seconds = index * (spec.period or 0.0)
    if not spec.months:
        return anchor + seconds
    start = datetime.fromtimestamp(anchor, UTC)
    year, month = divmod(start.year * 12 + start.month - 1 + index * spec.months, 12)
    next_year, next_month = divmod(year * 12 + month + 1, 12)
    days = (datetime(next_year, next_month + 1, 1) - datetime(year, month + 1, 1)).days
    moved = start.replace(year=year, month=month + 1, day=min(start.day, days))
    return (moved + timedelta(seconds=seconds)).timestamp()


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidError(
            f"timezone {name!r} of a schedule can't be looked up here; is tzdata installed?"
        ) from error
