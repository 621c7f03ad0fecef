"""Retries, Cron, Period, concurrent, batched: Modal's bounds, and what they turn into."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minimodal import context
from minimodal.errors import InvalidError
from minimodal.policy import (
    Cron,
    Period,
    Retries,
    batched,
    concurrent,
    delay_before,
    retry_policy,
)
from minimodal.types import Batching, RetryPolicy, ScheduleSpec

# --- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries", "delays"),
    [
        (3, [1, 1, 1]),
        (Retries(max_retries=4), [1, 2, 4, 8]),
        (Retries(max_retries=4, max_delay=5), [1, 2, 4, 5]),
        (Retries(max_retries=3, initial_delay=0), [1, 1, 1]),
        (Retries(max_retries=3, initial_delay=10, backoff_coefficient=1), [10, 10, 10]),
        (Retries(max_retries=2, initial_delay=60, max_delay=10), [10, 10]),
    ],
)
def test_delays(retries: int | Retries, delays: list[float]) -> None:
    policy = retry_policy(retries)
    assert policy.max_retries == (retries if isinstance(retries, int) else retries.max_retries)
    assert [delay_before(policy, n) for n in range(1, len(delays) + 1)] == delays


@given(
    attempt=st.integers(1, 10_000),
    coefficient=st.floats(1, 10),
    initial=st.floats(0, 60),
    longest=st.floats(1, 60),
    jitter=st.floats(0, 1, exclude_max=True),
)
def test_delays_are_bounded_and_never_shrink(
    attempt: int, coefficient: float, initial: float, longest: float, jitter: float
) -> None:
    policy = RetryPolicy(20_000, coefficient, initial, longest)
    delay = delay_before(policy, attempt, jitter)
    assert 1.0 <= delay <= 1.1 * longest
    assert delay_before(policy, attempt) <= delay
    assert delay_before(policy, attempt) <= delay_before(policy, attempt + 1)


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"max_retries": -1}, "max_retries"),
        ({"max_retries": 1.5}, "max_retries"),
        ({"max_retries": True}, "max_retries"),
        ({"max_retries": 1, "backoff_coefficient": 0.5}, "backoff_coefficient"),
        ({"max_retries": 1, "backoff_coefficient": 11}, "backoff_coefficient"),
        ({"max_retries": 1, "initial_delay": -1}, "initial_delay"),
        ({"max_retries": 1, "initial_delay": 61}, "initial_delay"),
        ({"max_retries": 1, "max_delay": 0.5}, "max_delay"),
        ({"max_retries": 1, "max_delay": 61}, "max_delay"),
        ({"max_retries": 1, "max_delay": float("nan")}, "max_delay"),
        ({"max_retries": 1, "initial_delay": "1"}, "initial_delay"),
    ],
)
def test_bad_retries(bad: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidError, match=field):
        Retries(**bad)


@pytest.mark.parametrize("bad", [-1, True, 1.5, "3", None])
def test_bad_retry_numbers(bad: Any) -> None:
    with pytest.raises(InvalidError, match="retries"):
        retry_policy(bad)


# --- schedules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("0 9 * * 1-5", "0 9 * * 1-5"),
        ("  */15   0-6/2,12 1,15 JAN-mar Fri ", "*/15 0-6/2,12 1,15 JAN-mar Fri"),
        ("@daily", "0 0 * * *"),
        ("0 0 ? * ?", "0 0 * * *"),
        ("0 0 L * *", "0 0 L * *"),
        ("0 0 L 2 *", "0 0 L 2 *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 30 2 1", "0 0 30 2 1"),  # Mondays in February
        ("0 0 31 1-12 *", "0 0 31 1-12 *"),
        ("0 0 * * 5#2,7#1", "0 0 * * 5#2,7#1"),
        ("5/15 * * * *", "5/15 * * * *"),
    ],
)
def test_cron(written: str, normal: str) -> None:
    assert Cron(written).spec() == ScheduleSpec(cron=normal, timezone="UTC")


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("0 0 0 * * *", "6 fields.*seconds"),
        ("@reboot", "1 fields"),
        ("60 * * * *", "'60' is no minute.*0 to 59"),
        ("* 24 * * *", "no hour"),
        ("* * 0 * *", "no day of month"),
        ("* * * 13 *", "no month"),
        ("* * * FEV *", "'FEV' is no month.*nor a name such as"),
        ("* * * * 8", "no day of week"),
        ("* * * * MON#6", "no day of week.*1 to 5"),
        ("* * 1 * 1#2", "n#m goes only with"),
        ("* * * * 1#2,3", "no day of week.*mixed"),
        ("5-1 * * * *", "no minute.*ends before it begins"),
        ("*/0 * * * *", "no minute.*step"),
        ("*/x * * * *", "no minute.*step"),
        ("*/60 * * * *", "no minute.*larger than 59"),
        ("1,,2 * * * *", "no minute"),
        ("-1 * * * *", "no minute"),
        ("٣ * * * *", "no minute"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        (None, "five fields"),
    ],
)
def test_bad_cron(bad: Any, said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        Cron(bad)


@pytest.mark.parametrize(
    "zone", ["Europe/Atlantis", "../etc/passwd", "/etc/passwd", "Europe", "\0"]
)
def test_unknown_timezone(zone: str) -> None:
    with pytest.raises(InvalidError, match="timezone"):
        Cron("0 0 * * *", timezone=zone)


@pytest.mark.parametrize("zone", [None, 3, ""])
def test_timezone_of_a_wrong_type(zone: Any) -> None:
    with pytest.raises(InvalidError, match=r"timezone.*Europe/Madrid"):
        Cron("0 0 * * *", timezone=zone)


def without_zone_data(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    def missing(name: str) -> None:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(zoneinfo, "ZoneInfo", missing)
    monkeypatch.setattr(zoneinfo, "available_timezones", set)


def test_f91_no_time_zone_data_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    without_zone_data(monkeypatch)
    with pytest.raises(InvalidError, match="tzdata"):
        Cron("0 0 * * *", timezone="Europe/Madrid")
    assert Cron("0 0 * * *").timezone == "UTC"


def test_a_container_without_time_zone_data_imports_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_zone_data(monkeypatch)
    here = context.ContainerContext("ct-1", "ap-1", "app", "f", "digest")
    monkeypatch.setattr(context, "container", here)
    assert Cron("0 0 * * *", timezone="Europe/Madrid").timezone == "Europe/Madrid"


def test_cron_is_a_value() -> None:
    assert Cron("@daily") == Cron("0 0 * * *")
    assert len({Cron("@daily"), Cron("0  0 * * *"), Cron("@hourly")}) == 2
    assert repr(Cron("@daily")) == "Cron('0 0 * * *', timezone='UTC')"


field = st.text("0123456789*/-,#L?aFRIjn", max_size=5)


@given(st.lists(field, min_size=5, max_size=5).map(" ".join))
@settings(max_examples=500, deadline=None)
def test_any_text_is_accepted_or_an_invalid_error(text: str) -> None:
    with suppress(InvalidError):
        cron = Cron(text)
        assert eval(repr(cron)) == cron


def numbers(low: int, high: int, names: str = "") -> st.SearchStrategy[str]:
    one = st.integers(low, high).map(str)
    if names:
        one |= st.sampled_from(names.split())
    span = st.tuples(st.integers(low, high), st.integers(low, high))
    ranges = span.map(lambda pair: f"{min(pair)}-{max(pair)}")
    step = st.integers(1, high)
    steps = st.tuples(ranges | st.just("*"), step).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.lists(st.just("*") | one | ranges | steps, min_size=1, max_size=3).map(",".join)


@pytest.mark.skipif(importlib.util.find_spec("croniter") is None, reason="croniter is missing")
@given(
    st.tuples(
        numbers(0, 59),
        numbers(0, 23),
        numbers(1, 31) | st.just("L"),
        numbers(1, 12, "jan FEB Dec"),
        numbers(0, 7, "sun FRI"),
    ).map(" ".join)
    | st.tuples(numbers(1, 12), st.sampled_from(["1#5", "FRI#2,0#1"])).map(
        lambda pair: f"0 0 * {pair[0]} {pair[1]}"
    )
)
@settings(max_examples=200, deadline=None)
def test_what_is_accepted_has_a_next_time(expression: str) -> None:
    from minimodal.engine.cron import next_after

    try:
        spec = Cron(expression).spec()
    except InvalidError:
        assume(False)
    assert next_after(spec, 1_800_000_000.0) > 1_800_000_000.0


@pytest.mark.parametrize(
    ("period", "seconds", "months"),
    [
        (Period(seconds=1.5), 1.5, 0),
        (Period(minutes=1, hours=1, days=1, weeks=1), 60 + 3600 + 86400 + 604800, 0),
        (Period(months=1), 0, 1),
        (Period(years=1, months=2, days=3), 3 * 86400, 14),
    ],
)
def test_period(period: Period, seconds: float, months: int) -> None:
    assert period.spec() == ScheduleSpec(period=seconds, months=months)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({}, "no time at all"),
        ({"hours": 0}, "no time at all"),
        ({"hours": -1}, "hours"),
        ({"hours": 1.5}, "hours"),
        ({"days": "1"}, "days"),
        ({"seconds": -0.1}, "seconds"),
        ({"seconds": float("nan")}, "seconds"),
        ({"seconds": float("inf")}, "hundred years"),
        ({"years": 101}, "hundred years"),
    ],
)
def test_bad_period(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        Period(**bad)


# --- concurrent and batched ------------------------------------------------------------------------


def plain(x: int) -> int:
    return x


def options(decorated: object) -> dict[str, Any]:
    found: dict[str, Any] = vars(decorated)["__minimodal_options__"]
    return found


def test_concurrent_and_batched_only_attach_data() -> None:
    def function(x: list[int]) -> list[int]:
        return x

    decorated = batched(max_batch_size=4, wait_ms=250)(concurrent(max_inputs=9)(function))
    assert decorated is function
    assert decorated([1]) == [1]
    assert options(function) == {
        "max_inputs": 9,
        "target_inputs": None,
        "batching": Batching(4, 0.25),
    }


def test_a_subclass_does_not_change_its_parent() -> None:
    @concurrent(max_inputs=9, target_inputs=5)
    class Parent:
        pass

    @concurrent(max_inputs=2)
    class Child(Parent):
        pass

    assert (options(Parent)["max_inputs"], options(Child)["max_inputs"]) == (9, 2)
    assert options(Child)["target_inputs"] is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: concurrent(), "max_inputs"),
        (lambda: concurrent(max_inputs=0), "max_inputs"),
        (lambda: concurrent(max_inputs=True), "max_inputs"),
        (lambda: concurrent(max_inputs=3, target_inputs=0), "target_inputs"),
        (lambda: concurrent(max_inputs=3, target_inputs=4), "more than max_inputs"),
        (lambda: concurrent(plain), "@concurrent\\(max_inputs=10\\)"),
        (lambda: concurrent(max_inputs=3)(42), "below @app.function"),  # type: ignore[type-var]
        (lambda: batched(), "both"),
        (lambda: batched(max_batch_size=4), "both"),
        (lambda: batched(max_batch_size=0, wait_ms=1), "max_batch_size"),
        (lambda: batched(max_batch_size=1001, wait_ms=1), "at most 1000"),
        (lambda: batched(max_batch_size=4, wait_ms=-1), "wait_ms"),
        (lambda: batched(max_batch_size=4, wait_ms=600_001), "at most 600000"),
        (lambda: batched(plain), "@batched\\(max_batch_size=8, wait_ms=100\\)"),
        (lambda: batched(max_batch_size=4, wait_ms=1)(type("C", (), {})), "methods"),
    ],
)
def test_bad_decorations(make: Callable[[], object], said: str) -> None:
    with pytest.raises(InvalidError, match=said):
        make()


def test_what_cannot_be_batched() -> None:
    decorate = batched(max_batch_size=4, wait_ms=1)

    def generator(x: list[int]) -> Any:
        yield x

    async def async_generator(x: list[int]) -> Any:
        yield x

    def default(x: list[int], y: int = 3) -> list[int]:
        return x

    for function, said in (
        (generator, "generator"),
        (async_generator, "generator"),
        (default, "y of"),
    ):
        with pytest.raises(InvalidError, match=said):
            decorate(function)


def test_concurrent_goes_on_the_class_and_not_on_a_method() -> None:
    with pytest.raises(InvalidError, match="put it on the class"):

        class _Wrong:
            @concurrent(max_inputs=2)
            def method(self) -> None:
                pass
