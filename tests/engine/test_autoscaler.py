"""How many containers a pool should have, and plan, as tables and properties. Simulations are in test_simulation.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimodal.engine.autoscaler import (
    ContainerState,
    ContainerView,
    PoolView,
    expired_idle,
    live,
    smooth,
    wanted_warm,
)
from minimodal.engine.placement import Node, Start, never_fits, plan
from minimodal.types import Resources, Scaling

NOW = 1000.0
HOST = Node("host", cpu=2.0, memory=4096)
ONE = Resources(cpu=0.5, memory=128)  # four fit


def containers(text: str, name: str = "c", **changes: Any) -> tuple[ContainerView, ...]:
    """'busy idle:30 starting retiring': views, an idle one with its seconds of idleness."""
    views = []
    for index, word in enumerate(text.split()):
        kind, _, number = word.partition(":")
        view = ContainerView(f"{name}{index}", ContainerState.READY, NOW - 500, node="host")
        match kind:
            case "busy":
                view = view._replace(inputs=int(number or 1))
            case "suspended":
                view = view._replace(suspended=1)
            case "idle":
                view = view._replace(idle_since=NOW - float(number or 0))
            case "starting":
                view = view._replace(state=ContainerState.STARTING, started=NOW - 0.1)
            case "retiring":
                view = view._replace(state=ContainerState.RETIRING, inputs=1)
        views.append(view._replace(**changes))
    return tuple(views)


def pool(text: str = "", key: str = "f", **fields: Any) -> PoolView:
    defaults = {"service_time": 1.0, "cold_start": 0.3, "resources": ONE}
    return PoolView(key, containers(text, key), **{**defaults, **fields})


@pytest.mark.parametrize(
    ("why", "text", "fields", "desired"),
    [
        ("nothing to do", "", {}, 0),
        ("from zero", "", {"queued": 1}, 1),
        ("long calls get one each", "", {"queued": 7, "service_time": 5.0}, 7),
        ("short calls share", "", {"queued": 100, "service_time": 0.01}, 4),
        ("a short queue drains sooner than a start", "busy", {"queued": 20, "service_time": 0.01}, 1),
        ("a longer one doesn't", "busy", {"queued": 200, "service_time": 0.01}, 7),
        ("calls as long as a start", "busy", {"queued": 1, "service_time": 0.31}, 2),
        ("those starting count", "starting starting", {"queued": 2}, 2),
        ("first steps are small", "", {"queued": 50, "service_time": None}, 2),
        ("and small if it never came up", "starting", {"queued": 50, "cold_start": None}, 2),
        ("unknown service time always grows", "busy", {"queued": 1, "service_time": None}, 2),
        ("a step as large as it is", "busy busy", {"queued": 50, "service_time": None, "running_since": NOW}, 4),
        ("larger ones for long calls", "busy busy", {"queued": 50, "service_time": None, "running_since": NOW - 0.1}, 10),
        ("busy are kept", "busy busy busy", {}, 3),
        ("suspended are kept but ask for none", "suspended", {"queued": 1, "service_time": 5.0}, 1),
        ("however long", "suspended suspended", {}, 2),
        ("idle are kept for the window", "idle:59 idle:1", {}, 2),
        ("and no longer", "idle:60 idle:61 idle:1", {}, 1),
        ("retiring ones don't count", "retiring busy", {"queued": 1, "service_time": 5.0}, 2),
        ("at most max", "", {"queued": 9, "scaling": Scaling(max_containers=3)}, 3),
        ("at least min", "", {"scaling": Scaling(min_containers=2)}, 2),
        ("min stays", "idle:99 idle:99 idle:99", {"scaling": Scaling(min_containers=2)}, 2),
        ("buffer while active", "busy", {"scaling": Scaling(buffer_containers=2)}, 3),
        ("no buffer at rest", "idle:99", {"scaling": Scaling(buffer_containers=2)}, 0),
        ("buffer within max", "busy", {"scaling": Scaling(0, 2, 5)}, 2),
        ("several per container", "", {"queued": 10, "max_inputs": 4, "service_time": 5.0}, 3),
        ("aim at the target", "", {"queued": 10, "max_inputs": 10, "target_inputs": 5}, 2),
        ("burst above target", "busy:10", {"max_inputs": 10, "target_inputs": 5}, 2),
        ("no burst for a moment", "busy:9", {"max_inputs": 10, "target_inputs": 8, "service_time": 0.01}, 1),
        ("waited longer than a start", "busy", {"queued": 2, "service_time": 0.01, "waiting_since": NOW - 1}, 2),
        ("not yet", "busy", {"queued": 2, "service_time": 0.01, "waiting_since": NOW - 0.1}, 1),
        ("something new came up just now", "busy", {"queued": 2, "service_time": 0.01, "waiting_since": NOW - 999, "cold_start": 300.0}, 1),
        ("it is starting already", "busy starting", {"queued": 2, "service_time": 0.01, "waiting_since": NOW - 1}, 2),
    ],
)  # fmt: skip
def test_desired(why: str, text: str, fields: dict[str, Any], desired: int) -> None:
    view = pool(text, **fields)
    kept = len(live(view)) - len(expired_idle(view, NOW))
    assert max(wanted_warm(view, NOW), kept) == desired, why


def test_the_longest_idle_go_first_and_the_newest_stays() -> None:
    view = pool("idle:70 idle:90 idle:80 idle:5", scaling=Scaling(min_containers=2))
    assert [each.id for each in expired_idle(view, NOW)] == ["f1", "f2"]


def test_smooth() -> None:
    assert smooth(None, 3.0) == 3.0
    assert smooth(1.0, 2.0) == pytest.approx(1.2)
    value: float | None = None
    for _ in range(50):
        value = smooth(value, 7.0)
    assert value == pytest.approx(7.0)


# --- plan -----------------------------------------------------------------------------------------


def test_start_where_there_is_room() -> None:
    result = plan([pool(queued=2)], [HOST], NOW)
    assert result.start == (Start("f", "host"), Start("f", "host"))
    assert not result.stop


def test_never_more_than_the_budget() -> None:
    result = plan([pool(queued=9)], [HOST], NOW)
    assert len(result.start) == 4
    assert "in use" in result.waiting["f"]


@pytest.mark.parametrize("state", ["busy", "starting", "retiring", "idle"])
def test_a_container_holds_its_room_until_it_is_gone(state: str) -> None:
    result = plan([pool(f"{state} {state}", queued=9)], [HOST], NOW)
    assert len(result.start) <= 2


def test_room_is_shared_fairly_and_by_weight() -> None:
    three = [pool(key=key, queued=50) for key in "abc"]
    hosts = [Node("host", 6.0, 10_000)]
    counts = [each.pool for each in plan(three, hosts, NOW).start]
    assert [counts.count(key) for key in "abc"] == [4, 4, 4]
    three[2] = three[2]._replace(weight=4.0)
    counts = [each.pool for each in plan(three, hosts, NOW).start]
    assert [counts.count(key) for key in "abc"] == [2, 2, 8]


def test_dominant_share_decides() -> None:
    wide = pool(key="wide", queued=50, resources=Resources(cpu=0.1, memory=1000))
    deep = pool(key="deep", queued=50, resources=Resources(cpu=1.0, memory=100))
    counts = [each.pool for each in plan([wide, deep], [Node("host", 10, 10_000)], NOW).start]
    assert (counts.count("wide"), counts.count("deep")) == (9, 9)


def test_the_node_that_is_filled_best() -> None:
    nodes = [Node("large", 8, 8192), Node("small", 1, 512)]
    assert plan([pool(queued=1)], nodes, NOW).start == (Start("f", "small"),)
    big = pool(queued=1, resources=Resources(cpu=4, memory=128))
    assert plan([big], nodes, NOW).start == (Start("f", "large"),)


def test_an_idle_container_gives_way() -> None:
    full = pool("idle:9 busy busy busy", key="a")
    needy = pool(key="b", queued=1, waiting_since=NOW)
    first = plan([full, needy], [HOST], NOW)
    assert (first.start, first.stop, first.retire) == ((), ("a0",), ())
    gone = full._replace(containers=full.containers[1:])
    assert plan([gone, needy], [HOST], NOW).start == (Start("b", "host"),)


def test_room_being_freed_is_not_freed_twice_nor_given_to_another() -> None:
    leaving = pool("retiring busy busy busy", key="a")
    needy = pool(key="b", queued=1, waiting_since=NOW - 9)
    result = plan([leaving, needy], [HOST], NOW)
    assert (result.start, result.stop, result.retire) == ((), (), ())
    big = pool(key="b", queued=1, waiting_since=NOW, resources=Resources(cpu=1.0, memory=128))
    small = pool("busy", key="c", queued=9)
    result = plan([pool("retiring busy", key="a"), big, small], [HOST], NOW)
    assert result.start == ()  # the free half cpu is half of what b was promised


def test_between_two_short_calls_a_container_is_kept_for_a_moment() -> None:
    loop = pool("idle:0.05 busy", key="a", cold_start=0.4)
    needy = pool(
        "busy busy", key="b", queued=9, waiting_since=NOW, service_time=60.0, cold_start=5.0
    )
    result = plan([loop, needy], [HOST], NOW)
    assert not result.stop
    assert result.wake_at == pytest.approx(NOW + 0.35)
    waited = needy._replace(waiting_since=NOW - 0.5)
    assert plan([loop, waited], [HOST], NOW).stop == ("a0",)


def test_min_containers_give_way_only_to_a_pool_that_has_none() -> None:
    kept = pool("idle:9 idle:9", key="a", scaling=Scaling(min_containers=2))
    needy = pool("busy busy", key="b", queued=5, waiting_since=NOW - 9)
    assert plan([kept, needy], [HOST], NOW).stop == ()
    hungry = pool(key="b", queued=1, waiting_since=NOW - 9)
    busy = pool("busy busy", key="c")
    assert plan([kept, busy, hungry], [HOST], NOW).stop == ("a0",)


def test_keeping_warm_never_takes_room_from_others() -> None:
    kept = pool(key="a", scaling=Scaling(min_containers=2))
    idle = pool("idle:9 idle:9 idle:9 idle:9", key="b")
    assert plan([kept, idle], [HOST], NOW).stop == ()
    assert len(plan([kept], [HOST], NOW).start) == 2


def test_busy_containers_are_never_stopped_but_a_hog_retires_one() -> None:
    hog = pool("busy busy busy busy", key="a", queued=1000)
    result = plan([hog, pool(key="b", queued=1, waiting_since=NOW)], [HOST], NOW)
    assert (result.stop, result.retire) == ((), ("a0",))
    # and nothing more once the shares are as equal as they can be
    even = pool("busy busy", key="a", queued=1000), pool("busy busy", key="b", queued=1000)
    result = plan(even, [HOST], NOW)
    assert (result.start, result.stop, result.retire) == ((), (), ())


def test_pools_take_turns_where_only_one_fits() -> None:
    all_of_it = Resources(cpu=2.0, memory=128)
    holder = pool("busy", key="a", queued=9, resources=all_of_it)
    needy = pool(key="b", queued=1, resources=all_of_it, empty_since=NOW)
    assert plan([holder, needy], [HOST], NOW).retire == ("a0",)
    fresh = holder._replace(containers=(holder.containers[0]._replace(started=NOW - 1),))
    result = plan([fresh, needy], [HOST], NOW)
    assert result.retire == ()
    assert result.wake_at == pytest.approx(NOW - 1 + 3.0)
    light = needy._replace(weight=0.25)  # it waits as much longer as it has less right to it
    assert plan([holder, light], [HOST], NOW + 11).retire == ()
    assert plan([holder, light], [HOST], NOW + 12.1).retire == ("a0",)


def test_starts_that_nobody_needs_any_more_give_way() -> None:
    cancelled = pool("starting starting starting starting", key="a")
    result = plan([cancelled, pool(key="b", queued=1)], [HOST], NOW)
    assert len(result.stop) == 1


def test_a_lowered_maximum_stops_idle_ones_and_retires_busy_ones() -> None:
    view = pool("busy idle:1 busy", scaling=Scaling(max_containers=1))
    result = plan([view], [HOST], NOW)
    assert (set(result.stop), len(result.retire)) == ({"f1"}, 1)


def test_the_maximum_counts_those_that_are_leaving() -> None:
    view = pool("retiring", queued=3, scaling=Scaling(max_containers=1))
    assert plan([view], [HOST], NOW).start == ()


@pytest.mark.parametrize(("may_start", "started"), [(0, 0), (1, 1), (None, 3)])
def test_the_breaker_limits_starts(may_start: int | None, started: int) -> None:
    view = pool(queued=3, service_time=9.0, may_start=may_start, scaling=Scaling(min_containers=3))
    assert len(plan([view], [HOST], NOW).start) == started


def test_wakes_when_the_window_ends() -> None:
    assert plan([pool("idle:20")], [HOST], NOW).wake_at == NOW + 40
    assert plan([pool("idle:60")], [HOST], NOW).stop == ("f0",)
    kept = pool("idle:60", scaling=Scaling(min_containers=1))
    assert plan([kept], [HOST], NOW).wake_at is None


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (Resources(cpu=2, memory=4096), None),
        (Resources(cpu=3), "3 cpu"),
        (Resources(memory=10**6), "1000000 MiB"),
    ],
)
def test_never_fits(resources: Resources, said: str | None) -> None:
    reason = never_fits(resources, [HOST])
    assert reason is None if said is None else said in (reason or "")
    if said:
        view = pool(queued=1, resources=resources)
        assert said in plan([view], [HOST], NOW).waiting["f"]
        two = [HOST, HOST._replace(name="other")]
        assert never_fits(resources, two), "a container runs on one node, not on the sum"


# --- properties -----------------------------------------------------------------------------------

words = st.sampled_from(
    ["busy", "busy:2", "suspended", "idle:0.1", "idle:5", "idle:99", "starting", "retiring"]
)


@st.composite
def one_pool(draw: st.DrawFn, key: str = "f") -> PoolView:
    scaling = Scaling(
        min_containers=draw(st.integers(0, 2)),
        max_containers=draw(st.sampled_from([None, 2, 5])),
        buffer_containers=draw(st.integers(0, 2)),
        scaledown_window=draw(st.sampled_from([2.0, 60.0])),
    )
    return pool(
        " ".join(draw(st.lists(words, max_size=3))),
        key=key,
        queued=draw(st.integers(0, 30)),
        waiting_since=draw(st.sampled_from([None, NOW, NOW - 0.2, NOW - 50])),
        service_time=draw(st.sampled_from([None, 0.001, 0.5, 60.0])),
        cold_start=draw(st.sampled_from([None, 0.03, 0.4, 20.0])),
        resources=draw(st.sampled_from([ONE, Resources(1, 512), Resources(0.1, 2048)])),
        scaling=scaling,
        max_inputs=draw(st.sampled_from([1, 2, 8])),
        may_start=draw(st.sampled_from([None, None, 0, 1, 3])),
        weight=draw(st.sampled_from([0.5, 1.0, 4.0])),
    )


views = st.integers(1, 4).flatmap(lambda count: st.tuples(*map(one_pool, "abcd"[:count])))


@given(views)
@settings(max_examples=400, deadline=None)
def test_whatever_the_pools_the_plan_keeps_its_rules(pools: tuple[PoolView, ...]) -> None:
    result = plan(pools, [HOST], NOW)
    by_id = {each.id: (view, each) for view in pools for each in view.containers}
    for name in result.stop:
        assert not by_id[name][1].busy, "a busy container was stopped"
    for name in result.retire:
        assert by_id[name][1].busy
        assert by_id[name][1].state is ContainerState.READY
    held = [view.resources for view in pools for _ in view.containers]
    named = {view.key: view for view in pools}
    new = [named[start.pool].resources for start in result.start]
    fitted_before = sum(each.cpu for each in held) <= HOST.cpu
    fitted_before &= sum(each.memory for each in held) <= HOST.memory
    if new and fitted_before:
        assert sum(each.cpu for each in held + new) <= HOST.cpu + 1e-6
        assert sum(each.memory for each in held + new) <= HOST.memory
    for view in pools:
        starts = sum(start.pool == view.key for start in result.start)
        if starts and view.scaling.max_containers is not None:
            assert len(view.containers) + starts <= view.scaling.max_containers
        starting = sum(each.state is ContainerState.STARTING for each in view.containers)
        if starts and view.may_start is not None:
            assert starting + starts <= view.may_start
        ends = sum(by_id[name][0].key == view.key for name in (*result.stop, *result.retire))
        assert not (starts and ends), "a pool starts and stops at once"
    assert result.wake_at is None or result.wake_at > NOW
    assert result == plan(pools, [HOST], NOW)
