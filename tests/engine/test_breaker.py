"""Breaker: its three states as a table of steps, and what must hold in any order of steps."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from minimodal.engine.breaker import Breaker, Breakers, BreakerState


def fail(
    breaker: Breaker, now: float, times: int = 1, reason: str = "it exited with code 1"
) -> None:
    for _ in range(times):
        ticket = breaker.admit(now)
        assert ticket
        breaker.failure(ticket, now, reason)


def test_opens_after_failures_in_a_row_and_says_why() -> None:
    breaker = Breaker(threshold=3, first_delay=1.0)
    fail(breaker, 0.0, 2)
    assert breaker.state(0.0) is BreakerState.CLOSED
    assert breaker.allowance(0.0) == 1
    fail(breaker, 0.5)
    assert breaker.state(0.5) is BreakerState.OPEN
    assert breaker.fails_fast(0.5)
    assert breaker.admit(1.4) is None
    assert breaker.allowance(1.4) == 0
    assert str(breaker.view(1.0)) == (
        "open: 3 containers failed in a row, the last because it exited with code 1; "
        "one is tried again in 0.5 s"
    )


def test_a_success_between_failures_keeps_it_closed() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(10):
        fail(breaker, 0.0, 2)
        ticket = breaker.admit(0.0)
        assert ticket
        breaker.success(ticket)
    assert breaker.state(0.0) is BreakerState.CLOSED
    assert breaker.allowance(0.0) is None
    assert str(breaker.view(0.0)) == "closed"


def test_half_open_admits_one_probe() -> None:
    breaker = Breaker(threshold=1, first_delay=1.0)
    fail(breaker, 0.0)
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    assert not breaker.fails_fast(1.0)
    probe = breaker.admit(1.0)
    assert probe
    assert breaker.admit(1.0) is None
    assert breaker.allowance(1.0) == 1
    breaker.success(probe)
    assert breaker.state(1.0) is BreakerState.CLOSED
    assert breaker.admit(1.0)
    assert breaker.admit(1.0)


def test_backs_off_each_time_the_probe_fails_and_starts_over_after_success() -> None:
    breaker = Breaker(threshold=1, first_delay=1.0, factor=2.0, longest_delay=5.0)
    now, waits = 0.0, []
    for _ in range(5):
        fail(breaker, now)
        waits.append(breaker.view(now).retry_in)
        now += waits[-1]
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
    probe = breaker.admit(now)
    assert probe
    breaker.success(probe)
    fail(breaker, now)
    assert breaker.view(now).retry_in == 1.0


def test_a_probe_that_was_given_up_is_sent_again() -> None:
    breaker = Breaker(threshold=1)
    fail(breaker, 0.0)
    probe = breaker.admit(5.0)
    assert probe
    breaker.withdraw(probe)
    assert breaker.admit(5.0)


def test_stragglers_tell_nothing_when_they_fail_and_everything_when_they_work() -> None:
    breaker = Breaker(threshold=2, first_delay=1.0)
    stragglers = [breaker.admit(0.0) for _ in range(4)]
    assert all(stragglers)
    for ticket in stragglers[:3]:
        breaker.failure(ticket or 0, 0.0, "reason")
    assert breaker.view(0.0).retry_in == 1.0  # opened once, not pushed further out
    breaker.success(stragglers[3] or 0)
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_one_ticket_counts_once() -> None:
    breaker = Breaker(threshold=2)
    ticket = breaker.admit(0.0)
    assert ticket
    for _ in range(5):
        breaker.failure(ticket, 0.0, "reason")
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_reset() -> None:
    breaker = Breaker(threshold=1)
    fail(breaker, 0.0)
    breaker.reset()
    assert breaker.admit(0.0)


@given(
    threshold=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from("awfsw"), st.floats(0, 20), st.integers(0, 5))),
)
@settings(max_examples=300, deadline=None)
def test_whatever_happens(threshold: int, steps: list[tuple[str, float, int]]) -> None:
    breaker = Breaker(threshold, first_delay=1.0, longest_delay=8.0)
    now, out, probes = 0.0, list[int](), set[int]()
    in_a_row = 0
    for step, passed, which in steps:
        now += passed
        if step == "a" or not out:
            before = breaker.state(now)
            ticket = breaker.admit(now)
            if before is BreakerState.OPEN:
                assert ticket is None
            if ticket:
                out.append(ticket)
                if before is BreakerState.HALF_OPEN:
                    probes = {each for each in probes if each in out}
                    assert not probes, "two probes at once"
                    probes.add(ticket)
            continue
        ticket = out.pop(which % len(out))
        match step:
            case "f":
                in_a_row += 1
                breaker.failure(ticket, now, "reason")
            case "s":
                in_a_row, probes = 0, set()
                breaker.success(ticket)
                assert breaker.state(now) is BreakerState.CLOSED
            case "w":
                breaker.withdraw(ticket)
        assert breaker.view(now).retry_in <= 8.0 + 1e-9  # a difference of floats
        if in_a_row >= threshold:
            assert breaker.state(now) is not BreakerState.CLOSED
        assert breaker.state(now + 8.0) is not BreakerState.OPEN, "it never stays open for good"


def test_functions_of_one_image_stop_together_when_the_image_is_at_fault() -> None:
    image = Breaker(threshold=5)
    functions = [Breakers(image) for _ in range(3)]
    starts = 0
    for now in (0.0, 0.1, 0.2):
        for each in functions:
            ticket = each.admit(now)
            if ticket is not None:
                starts += 1
                each.failure(ticket, now, "exit code 127: no python3", of_image=True)
    assert starts == 5
    assert all(each.fails_fast(0.3) and not each.closed for each in functions)
    assert "no python3" in str(functions[2].view(0.3))
    assert functions[0].admit(5.0) is not None
    assert functions[1].admit(5.0) is None, "one probe for all of them"


def test_one_functions_own_failures_stop_no_other_of_its_image() -> None:
    image = Breaker(threshold=5)
    broken, good = Breakers(image), Breakers(image)
    for _ in range(5):
        ticket = broken.admit(0.0)
        assert ticket is not None
        broken.failure(ticket, 0.0, "ImportError", of_image=False)
    assert broken.fails_fast(0.0)
    assert good.closed
    assert good.admit(0.0) is not None
