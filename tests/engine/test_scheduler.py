"""FairQueue and Tenants: order, shares, quotas, against tables and a small model."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minimodal.engine.scheduler import SPREAD_LIMIT, FairQueue, Quota, Tenants
from minimodal.errors import InvalidError, ResourceExhaustedError


def fill(queue: FairQueue[str], user: str, count: int, priority: int = 0) -> None:
    for index in range(count):
        queue.push(f"{user}{index}", user, priority)


def drain(queue: FairQueue[str], count: int = 1 << 62) -> list[str]:
    """Pop and finish one at a time, as a pool with one slot does."""
    done: list[str] = []
    while len(done) < count and (item := queue.pop()) is not None:
        queue.finish(item.rstrip("0123456789"))
        done.append(item)
    return done


def shares(items: list[str]) -> Counter[str]:
    return Counter(item.rstrip("0123456789") for item in items)


def jain(counts: list[int]) -> float:
    return sum(counts) ** 2 / (len(counts) * sum(count * count for count in counts))


# --- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pushes", "order"),
    [
        ([("a0", "a", 0), ("a1", "a", 0), ("a2", "a", 0)], "a0 a1 a2"),
        ([("a0", "a", 0), ("a1", "a", 5), ("a2", "a", -1), ("a3", "a", 5)], "a1 a3 a0 a2"),
        ([("a0", "a", 0), ("a1", "a", 0), ("b0", "b", 0)], "a0 b0 a1"),
        ([("a0", "a", 9), ("a1", "a", 9), ("b0", "b", 0), ("b1", "b", 0)], "a0 b0 a1 b1"),
        ([], ""),
    ],
)
def test_order(pushes: list[tuple[str, str, int]], order: str) -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    for item, user, priority in pushes:
        queue.push(item, user, priority)
    assert drain(queue) == order.split()


def test_a_call_given_back_goes_first_again() -> None:
    queue: FairQueue[str] = FairQueue(Tenants(Quota(max_queued=3)))
    fill(queue, "a", 3)
    item = queue.pop()
    assert item == "a0"
    queue.push("a3", "a")
    queue.finish("a")
    queue.push_front(item, "a")  # over the quota on queued calls, and still accepted
    assert drain(queue) == ["a0", "a1", "a2", "a3"]


def test_discard() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    fill(queue, "a", 5)
    assert queue.discard("a1")
    assert not queue.discard("a1")
    assert not queue.discard("nobody")
    assert len(queue) == 4
    assert "a1" not in queue
    assert list(queue) == ["a0", "a2", "a3", "a4"]
    queue.push("a1", "a")
    assert drain(queue) == ["a0", "a2", "a3", "a4", "a1"]


def test_a_discarded_call_that_is_given_back_is_first_and_only_once() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    fill(queue, "a", 4)
    queue.discard("a2")
    queue.push_front("a2", "a")
    assert list(queue) == ["a2", "a0", "a1", "a3"]
    assert drain(queue) == ["a2", "a0", "a1", "a3"]


def test_one_item_waits_only_once() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    queue.push("a0", "a")
    with pytest.raises(InvalidError, match="a0"):
        queue.push("a0", "b")
    assert drain(queue) == ["a0"]


def test_ever_new_priorities_leave_no_lanes_behind() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    queue.push("a0", "a", -1)
    for index in range(1, 1000):
        queue.push(f"a{index}", "a", index)
        assert queue.discard(f"a{index}")
    assert len(queue._lines["a"].lanes) < 20
    assert drain(queue) == ["a0"]


# --- shares ----------------------------------------------------------------------------------------


def test_ten_equal_users_share_equally() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    for index, user in enumerate("abcdefghij"):
        fill(queue, user, 1000 * (1 + index))  # some ask for ten times as much
    counts = shares(drain(queue, 5000))
    assert jain(list(counts.values())) >= 0.99


@pytest.mark.parametrize("slots", [1, 7, 64])
def test_weights_give_proportional_shares(slots: int) -> None:
    tenants = Tenants()
    for user, weight in zip("abc", (1, 2, 4), strict=True):
        tenants.set_quota(user, Quota(weight=weight))
    queue: FairQueue[str] = FairQueue(tenants)
    for user in "abc":
        fill(queue, user, 10_000)
    running: list[str] = []
    counts: Counter[str] = Counter()
    for _ in range(7_000):
        if len(running) == slots:
            queue.finish(running.pop(0))
        item = queue.pop()
        assert item is not None
        running.append(item[0])
        counts[item[0]] += 1
    for user, weight in zip("abc", (1, 2, 4), strict=True):
        assert counts[user] == pytest.approx(7_000 * weight / 7, rel=0.02)


def test_a_flood_does_not_delay_another_users_single_call() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    fill(queue, "flood", 100_000)
    for _ in range(100):  # at any moment of the flood
        drain(queue, 37)
        queue.push("b0", "b")
        assert "b0" in drain(queue, 1)


def test_idling_saves_up_no_credit() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    fill(queue, "a", 2000)
    fill(queue, "b", 1)
    drain(queue, 1001)
    fill(queue, "b", 500)
    assert shares(drain(queue, 200)) == {"a": 100, "b": 100}


def test_a_user_that_submits_one_call_at_a_time_pays_for_each() -> None:
    tenants = Tenants()
    tenants.set_quota("b", Quota(weight=0.25))
    queue: FairQueue[str] = FairQueue(tenants)
    fill(queue, "a", 1000)
    counts: Counter[str] = Counter()
    for index in range(500):
        if not queue.users().get("b"):
            queue.push(f"b{index}", "b")
        counts[drain(queue, 1)[0][0]] += 1
    assert counts["b"] == pytest.approx(100, abs=3)


def test_what_a_user_runs_in_other_pools_counts() -> None:
    tenants = Tenants()
    elsewhere: FairQueue[str] = FairQueue(tenants)
    here: FairQueue[str] = FairQueue(tenants)
    fill(elsewhere, "a", 3)
    assert [elsewhere.pop() for _ in range(3)] == ["a0", "a1", "a2"]  # and they keep running
    fill(here, "a", 1000)
    fill(here, "b", 1000)
    counts = shares(drain(here, 500))
    assert counts["b"] == pytest.approx(4 * counts["a"], rel=0.05)
    for _ in range(3):
        elsewhere.finish("a")
    counts = shares(drain(here, 500))
    assert counts["b"] == pytest.approx(counts["a"], abs=2)  # nothing is held against it later


def test_what_a_user_runs_elsewhere_never_starves_it() -> None:
    tenants = Tenants()
    elsewhere: FairQueue[str] = FairQueue(tenants)
    here: FairQueue[str] = FairQueue(tenants)
    fill(elsewhere, "a", 1000)
    while elsewhere.pop():
        pass
    fill(here, "a", 100)
    fill(here, "b", 1000)
    assert shares(drain(here, 500))["a"] >= 500 / (SPREAD_LIMIT + 2)


# --- quotas ----------------------------------------------------------------------------------------


def test_queue_quota_names_user_and_quota() -> None:
    tenants = Tenants()
    tenants.set_quota("a", Quota(max_queued=3))
    one: FairQueue[str] = FairQueue(tenants)
    two: FairQueue[str] = FairQueue(tenants)
    fill(one, "a", 2)
    two.push("x", "a")
    with pytest.raises(ResourceExhaustedError, match=r"'a'.*at most 3.*max_queued"):
        two.push("y", "a")
    two.push("y", "b")
    assert tenants.queued("a") == 3
    two.discard("x")
    two.push("y2", "a")


def test_running_quota_skips_the_user_and_wakes_it() -> None:
    tenants = Tenants()
    tenants.set_quota("a", Quota(max_running=2))
    queue: FairQueue[str] = FairQueue(tenants)
    fill(queue, "a", 5)
    fill(queue, "b", 3)
    assert queue.runnable() == 5
    assert [queue.pop() for _ in range(6)] == ["a0", "b0", "a1", "b1", "b2", None]
    assert len(queue) == 3
    assert queue.runnable() == 0
    assert queue.finish("b") == []
    assert queue.finish("a") == [queue]
    assert queue.runnable() == 1
    assert queue.pop() == "a2"
    assert queue.pop() is None


def test_running_quota_counts_over_all_queues_and_wakes_each() -> None:
    tenants = Tenants(Quota(max_running=1))
    one: FairQueue[str] = FairQueue(tenants, "one")
    two: FairQueue[str] = FairQueue(tenants, "two")
    fill(one, "a", 2)
    two.push("x", "a")
    assert one.pop() == "a0"
    assert two.pop() is None
    assert one.pop() is None
    assert {queue.name for queue in one.finish("a")} == {"one", "two"}
    assert two.pop() == "x"
    assert one.pop() is None
    assert two.finish("a") == [one]
    assert one.pop() == "a1"


def test_raising_a_quota_wakes_without_credit() -> None:
    tenants = Tenants()
    tenants.set_quota("a", Quota(max_running=0))
    queue: FairQueue[str] = FairQueue(tenants)
    fill(queue, "a", 100)
    fill(queue, "b", 1000)
    assert shares(drain(queue, 500)) == {"b": 500}
    assert tenants.set_quota("a", Quota()) == [queue]
    assert shares(drain(queue, 100)) == {"a": 50, "b": 50}


@pytest.mark.parametrize(
    "bad", [{"weight": 0}, {"weight": -1}, {"weight": float("inf")}, {"weight": float("nan")}]
    + [{"max_running": -1}, {"max_queued": -1}],
)  # fmt: skip
def test_bad_quotas(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidError):
        Quota(**bad)  # type: ignore[arg-type]  # the point of the test


def test_heads_are_the_first_of_each_user_and_priority() -> None:
    queue: FairQueue[str] = FairQueue(Tenants())
    fill(queue, "a", 3)
    fill(queue, "b", 2)
    queue.push("a9", "a", 5)
    queue.discard("a0")
    assert sorted(queue.heads()) == ["a1", "a9", "b0"]
    queue.discard("b0")
    queue.discard("b1")
    assert sorted(queue.heads()) == ["a1", "a9"]


# --- the pool's own numbers -----------------------------------------------------------------------


def test_a_pools_weight_is_its_users_split_over_their_pools() -> None:
    tenants = Tenants()
    tenants.set_quota("a", Quota(weight=4))
    one: FairQueue[str] = FairQueue(tenants)
    two: FairQueue[str] = FairQueue(tenants)
    fill(one, "a", 2)
    assert one.weight() == 4
    two.push("x", "a")
    two.push("y", "b")
    assert (one.weight(), two.weight()) == (2, 3)
    assert two.pop() == "x"
    assert two.weight() == 3  # running counts too
    two.finish("a")
    two.discard("y")
    assert (one.weight(), two.weight()) == (4, 0)


def test_users_that_left_are_forgotten() -> None:
    tenants = Tenants()
    queue: FairQueue[str] = FairQueue(tenants)
    for index in range(10_000):
        queue.push(f"{index}", f"user-{index}")
        queue.pop()
        queue.finish(f"user-{index}")
    assert len(tenants.users()) < 300
    assert len(queue._lines) < 300


class AgainstAModel(RuleBasedStateMachine):
    """Two queues and four users, compared with dictionaries; quotas hold after every step."""

    users = st.sampled_from("abcd")
    which = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.tenants = Tenants(Quota(max_running=3, max_queued=6))
        self.limits = dict.fromkeys("abcd", 3)
        self.queues: list[FairQueue[int]] = [FairQueue(self.tenants), FairQueue(self.tenants)]
        self.waiting: list[dict[int, tuple[str, int]]] = [{}, {}]
        self.running: list[list[tuple[int, str, int]]] = [[], []]
        self.ids = 0

    @rule(which=which, user=users, priority=st.integers(-1, 1))
    def push(self, which: int, user: str, priority: int) -> None:
        self.ids += 1
        queued = sum(owner == user for model in self.waiting for owner, _ in model.values())
        if queued >= 6:
            with pytest.raises(ResourceExhaustedError):
                self.queues[which].push(self.ids, user, priority)
        else:
            self.queues[which].push(self.ids, user, priority)
            self.waiting[which][self.ids] = (user, priority)

    @rule(which=which)
    def pop(self, which: int) -> None:
        item = self.queues[which].pop()
        model = self.waiting[which]
        if item is None:
            assert all(self.count(user) >= self.limits[user] for user, _ in model.values())
            return
        user, priority = model.pop(item)
        assert self.count(user) < self.limits[user]
        assert all(other <= priority for owner, other in model.values() if owner == user)
        self.running[which].append((item, user, priority))

    @precondition(lambda self: any(self.running))
    @rule(data=st.data(), give_back=st.booleans())
    def finish(self, data: st.DataObject, give_back: bool) -> None:
        which = data.draw(st.sampled_from([index for index in (0, 1) if self.running[index]]))
        index = data.draw(st.integers(0, len(self.running[which]) - 1))
        item, user, priority = self.running[which].pop(index)
        self.queues[which].finish(user)
        if give_back:
            self.queues[which].push_front(item, user, priority)
            self.waiting[which][item] = (user, priority)

    @rule(data=st.data(), which=which, again=st.booleans())
    def discard(self, data: st.DataObject, which: int, again: bool) -> None:
        model = self.waiting[which]
        if not model:
            assert not self.queues[which].discard(0)
            return
        item = data.draw(st.sampled_from(sorted(model)))
        user, priority = model.pop(item)
        assert self.queues[which].discard(item)
        if again:
            self.queues[which].push(item, user, priority)
            model[item] = (user, priority)

    @rule(user=users, limit=st.integers(0, 4))
    def change_quota(self, user: str, limit: int) -> None:
        self.limits[user] = limit
        self.tenants.set_quota(user, Quota(max_running=limit, max_queued=6))

    def count(self, user: str) -> int:
        return sum(owner == user for running in self.running for _, owner, _ in running)

    @invariant()
    def agrees(self) -> None:
        for queue, model in zip(self.queues, self.waiting, strict=True):
            assert len(queue) == len(model)
            assert sorted(queue) == sorted(model)
            assert queue.users() == Counter(user for user, _ in model.values())
            left = {user: max(0, self.limits[user] - self.count(user)) for user in "abcd"}
            waits = queue.users()
            assert queue.runnable() == sum(min(waits[user], left[user]) for user in waits)
        for user in "abcd":
            assert self.tenants.running(user) == self.count(user)


AgainstAModel.TestCase.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase


@given(
    weights=st.lists(st.integers(1, 8), min_size=2, max_size=6),
)
@settings(max_examples=40, deadline=None)
def test_shares_follow_any_weights(weights: list[int]) -> None:
    tenants = Tenants()
    users = "abcdef"[: len(weights)]
    for user, weight in zip(users, weights, strict=True):
        tenants.set_quota(user, Quota(weight=weight))
    queue: FairQueue[str] = FairQueue(tenants)
    for user in users:
        fill(queue, user, 400)
    counts = shares(drain(queue, 400))
    for user, weight in zip(users, weights, strict=True):
        assert abs(counts[user] - 400 * weight / sum(weights)) <= 1 + len(weights)
