"""When schedules fire: clocks that change, jump and sleep. Rows F87-F89 of the fault matrix, as pure data."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodal.engine.cron import LATE, REWIND, Due, Missed, due, next_after, occurrences
from minimodal.errors import InvalidError
from minimodal.policy import Cron, Period
from minimodal.types import ScheduleSpec

UTC = timezone.utc
HOUR, DAY, YEAR = 3600.0, 86_400.0, 365 * 86_400.0
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()

ZONES = [
    "Europe/Madrid",
    "America/New_York",
    "America/Santiago",  # changes at midnight
    "Australia/Lord_Howe",  # changes by half an hour
    "Africa/Cairo",  # changes at midnight, on Fridays
]


def local(spec: ScheduleSpec, after: str, count: int) -> list[str]:
    """The next ticks in the schedule's own zone."""
    zone = ZoneInfo(spec.timezone)
    start = datetime.fromisoformat(after).replace(tzinfo=zone).timestamp()
    ticks = itertools.islice(occurrences(spec, start), count)
    return [datetime.fromtimestamp(tick, zone).strftime("%m-%d %H:%M%z") for tick in ticks]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "ticks"),
    [
        ("0 9 * * 1-5", "UTC", "2026-01-02T09:00", ["01-05 09:00+0000", "01-06 09:00+0000"]),
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00", ["02-29 00:00+0000"]),
        (  # gap: once, right after it
            "30 2 * * *", "Europe/Madrid", "2026-03-28T02:30",
            ["03-29 03:00+0200", "03-30 02:30+0200"],
        ),
        (  # repeated hour: once, the first time
            "30 2 * * *", "Europe/Madrid", "2026-10-24T02:30",
            ["10-25 02:30+0200", "10-26 02:30+0100"],
        ),
        (  # wildcards follow real time
            "0 * * * *", "Europe/Madrid", "2026-10-25T01:00",
            ["10-25 02:00+0200", "10-25 02:00+0100", "10-25 03:00+0100"],
        ),
        (
            "0 * * * *", "Europe/Madrid", "2026-03-29T00:00",
            ["03-29 01:00+0100", "03-29 03:00+0200", "03-29 04:00+0200"],
        ),
        (
            "10 */3 * * *", "Australia/Lord_Howe", "2024-04-07T00:00",
            ["04-07 00:10+1100", "04-07 03:10+1030", "04-07 06:10+1030"],
        ),
        ("30 1 * * *", "America/New_York", "2026-10-31T02:00", ["11-01 01:30-0400", "11-02 01:30-0500"]),
    ],
)  # fmt: skip
def test_ticks(expression: str, zone: str, after: str, ticks: list[str]) -> None:
    assert local(Cron(expression, zone).spec(), after, len(ticks)) == ticks


def transitions(zone: str, first: int, last: int) -> list[datetime]:
    """The days (UTC noon before) on which the zone's clocks change."""
    info, found = ZoneInfo(zone), []
    day = datetime(first, 1, 1, 12, tzinfo=UTC)
    while day.year < last:
        following = day + timedelta(days=1)
        if day.astimezone(info).utcoffset() != following.astimezone(info).utcoffset():
            found.append(day)
        day = following
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_f88_ten_years_of_clock_changes_against_cronsim(zone: str) -> None:
    cronsim = pytest.importorskip("cronsim")
    changes = transitions(zone, 2024, 2034)
    assert len(changes) == 20
    rare = ["30 2 * * *", "30 1 * * *", "0 0 * * *", "15 0,3 * * 0,5"]
    often = ["*/30 * * * *", "0 * * * *"]
    if (
        zone != "Australia/Lord_Howe"
    ):  # there cronsim leaves out 03:10 after the half hour, see below
        often.append("10 */3 * * *")
    for day in changes:
        for expression in rare + often:
            before, after = (DAY * 2, DAY * 3) if expression in rare else (0, 16 * HOUR)
            start = day.timestamp() - before
            end = day.timestamp() + after
            ours = list(itertools.takewhile(
                lambda tick: tick <= end,  # noqa: B023  # used within the loop
                occurrences(ScheduleSpec(cron=expression, timezone=zone), start),
            ))  # fmt: skip
            simulated = cronsim.CronSim(
                expression, datetime.fromtimestamp(start, UTC).astimezone(ZoneInfo(zone))
            )
            theirs = itertools.takewhile(
                lambda tick: tick <= end,  # noqa: B023
                (tick.timestamp() for tick in simulated),
            )
            assert ours == list(theirs), (expression, day)


@pytest.mark.parametrize("zone", ZONES)
def test_f88_a_daily_tick_comes_once_a_day_for_a_year(zone: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()
    ticks = itertools.islice(occurrences(Cron("30 2 * * *", zone).spec(), start), 365)
    days = [datetime.fromtimestamp(tick, ZoneInfo(zone)).date() for tick in ticks]
    assert [(day - days[0]).days for day in days] == list(range(365))


# --- periods ---------------------------------------------------------------------------------------


def test_a_period_counts_from_the_deployment() -> None:
    spec = Period(hours=1).spec()
    assert due(spec, NOON, NOON) == Due(None, NOON, NOON + HOUR)
    on_time = due(spec, NOON, NOON + HOUR + 0.2, anchor=NOON)
    assert on_time == Due(NOON + HOUR, NOON + HOUR, NOON + 2 * HOUR)


def test_months_follow_the_calendar_without_drift() -> None:
    start = datetime(2027, 10, 31, 8, 30, tzinfo=UTC).timestamp()
    ticks = list(itertools.islice(occurrences(Period(months=1).spec(), start), 6))
    said = [datetime.fromtimestamp(tick, UTC).strftime("%y-%m-%d %H:%M") for tick in ticks]
    assert said == [
        "27-11-30 08:30", "27-12-31 08:30", "28-01-31 08:30",
        "28-02-29 08:30", "28-03-31 08:30", "28-04-30 08:30",
    ]  # fmt: skip
    later = next_after(Period(months=1).spec(), ticks[3], anchor=start)
    assert later == ticks[4], "from the anchor, not from the 29th"


@given(
    period=st.floats(0.01, 1e6),
    months=st.sampled_from([0, 0, 1, 5, 12]),
    anchor=st.floats(0, 2e9),
    steps=st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None)
def test_periods_only_go_forward_and_leave_none_out(
    period: float, months: int, anchor: float, steps: int
) -> None:
    spec = ScheduleSpec(period=period, months=months)
    after = anchor + steps * period
    first = next_after(spec, after, anchor=anchor)
    second = next_after(spec, first, anchor=anchor)
    longest = period + months * 31 * DAY
    assert after < first <= after + longest * 1.001
    assert first < second <= first + longest * 1.001
    if not months:
        assert second - first == pytest.approx(period, abs=1e-5)


# --- missed ticks and jumps ------------------------------------------------------------------------

DAILY = Cron("0 9 * * *").spec()
NINE = datetime(2026, 6, 15, 9, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("why", "last", "now", "policy", "tick", "remembered", "missed"),
    [
        ("not yet", NINE, NINE + 5, Missed.SKIP, None, NINE, False),
        ("on time", NINE - DAY, NINE + 0.1, Missed.SKIP, NINE, NINE, False),
        ("a little late", NINE - DAY, NINE + LATE, Missed.SKIP, NINE, NINE, False),
        ("too late", NINE - DAY, NINE + LATE + 1, Missed.SKIP, None, NINE, True),
        ("made up for", NINE - DAY, NINE + HOUR, Missed.CATCH_UP, NINE, NINE, False),
        ("only the last", NINE - 9 * DAY, NINE + HOUR, Missed.CATCH_UP, NINE, NINE, True),
        ("none of them", NINE - 9 * DAY, NINE + HOUR, Missed.SKIP, None, NINE, True),
        ("the one on time", NINE - 9 * DAY, NINE + 1, Missed.SKIP, NINE, NINE, True),
        ("a year on", NINE - YEAR, NINE, Missed.CATCH_UP, NINE, NINE, True),
        ("an hour back", NINE, NINE - HOUR, Missed.CATCH_UP, None, NINE, False),
        ("a year back", NINE, NINE - YEAR, Missed.CATCH_UP, None, NINE - YEAR, False),
    ],
)
def test_due(
    why: str, last: float, now: float, policy: Missed, tick: float | None,
    remembered: float, missed: bool,
) -> None:  # fmt: skip
    result = due(DAILY, last, now, policy)
    assert (result.tick, result.last, result.missed) == (tick, remembered, missed), why
    assert result.next > now or result.next == NINE + DAY


@pytest.mark.parametrize("spec", [Cron("*/5 * * * *").spec(), Period(minutes=5).spec()])
@pytest.mark.parametrize("jump", [HOUR, -HOUR, YEAR, -YEAR, 8 * HOUR, 0.5, -0.5])
@pytest.mark.parametrize("policy", list(Missed))
def test_f87_f89_jumps_run_no_tick_twice_and_never_flood(
    spec: ScheduleSpec, jump: float, policy: Missed
) -> None:
    now = last = anchor = NOON
    ran: list[float] = []
    for step in range(240):  # two hours of looking every half minute, the jump after one
        now += 30.0 + (jump if step == 120 else 0.0)
        result = due(spec, last, now, policy, anchor=anchor)
        last = result.last
        if result.tick is not None:
            ran.append(result.tick)
        at_most_one_more = 1 + (step + 1) * 30 / 300
        assert len(ran) <= at_most_one_more
    assert len(set(ran)) == len(ran)
    silent = -jump if -REWIND <= jump < 0 else 0.0
    assert len(ran) >= (7200 - silent) / 300 - 2, "it goes on after the jump"


def test_a_minutely_schedule_after_a_year_is_found_at_once() -> None:
    result = due(Cron("* * * * *").spec(), NOON - YEAR, NOON + 30)
    assert (result.tick, result.next, result.missed) == (NOON, NOON + 60, True)


def test_due_finds_the_last_tick_however_unevenly_they_lie() -> None:
    spec = Cron("*/10 8 * 1 *").spec()  # busy mornings in January, nothing else
    last = datetime(2025, 6, 1, tzinfo=UTC).timestamp()
    expected = datetime(2026, 1, 31, 8, 50, tzinfo=UTC).timestamp()
    assert due(spec, last, NOON).tick == expected


@given(
    expression=st.sampled_from(["*/7 * * * *", "0 9 * * 1-5", "30 2 * * *", "0 0 1 * *"]),
    zone=st.sampled_from(ZONES),
    start=st.floats(1.7e9, 2.0e9),
    looks=st.lists(st.floats(0.0, DAY), max_size=5),
)
@settings(max_examples=30, deadline=None)
def test_however_rarely_one_looks(
    expression: str, zone: str, start: float, looks: list[float]
) -> None:
    """Each look runs the latest tick since the look before, so exactly what enumeration says."""
    spec = ScheduleSpec(cron=expression, timezone=zone)
    last, now = start, start
    for passed in looks:
        before, now = now, now + passed
        result = due(spec, last, now, Missed.CATCH_UP)
        between: list[float] = []
        tick = next_after(spec, last)
        while tick <= now and len(between) < 700:
            between.append(tick)
            tick = next_after(spec, tick)
        assert result.tick == (between[-1] if between else None)
        assert result.missed == (len(between) > 1)
        assert result.next > now
        assert result.next == tick
        assert result.last <= now or result.last == start
        assert before <= now
        last = result.last


def test_a_stored_schedule_that_cannot_be_computed_says_so() -> None:
    for bad in (ScheduleSpec(cron="0 0 30 2 *"), ScheduleSpec(cron="x y z"), ScheduleSpec()):
        with pytest.raises(InvalidError):
            next_after(bad, NOON)
    with pytest.raises(InvalidError, match="Nowhere"):
        next_after(ScheduleSpec(cron="0 0 * * *", timezone="Nowhere"), NOON)
