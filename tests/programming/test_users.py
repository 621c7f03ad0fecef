"""`as_user` and quotas: whose calls run when, through every way of calling, in real containers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimodal
from minimodal.errors import InvalidError, ResourceExhaustedError
from minimodal.host import Host
from tests.programming import users
from tests.programming.conftest import one_backend, wait_until

APP = users.app


@pytest.fixture
def gate(running: Host, tmp_path: Path) -> Iterator[Gate]:
    """The one container of `one_at_a_time` is busy until the test opens the gate."""
    path = tmp_path / "gate"
    blocker = users.one_at_a_time.spawn(str(path))
    wait_until(running, lambda: running.engine.calls[blocker.object_id].slot is not None)
    gate = Gate(blocker, path)
    yield gate
    gate.open()


class Gate:
    def __init__(self, blocker: minimodal.FunctionCall[str], path: Path) -> None:
        self._blocker = blocker
        self._path = path

    def open(self) -> None:
        self._path.touch()
        self._blocker.get(timeout=20)

    def order(self, calls: dict[str, minimodal.FunctionCall[str]]) -> list[str]:
        """Open it; the names of the calls in the order in which they ended."""
        self.open()
        ended = {name: float(call.get(timeout=30)) for name, call in calls.items()}
        return sorted(ended, key=lambda name: ended[name])


def queued(host: Host, user: str) -> int:
    return host.engine.tenants.queued(user)


def test_every_way_of_calling_belongs_to_the_user(running: Host) -> None:
    with minimodal.as_user("ada"):
        spawned = users.whoami.spawn()
        results = users.whoami.map([None] * 3, order_outputs=False)
        items = users.names.remote_gen(2)
        assert users.whoami.remote() == "ada"
        assert asyncio.run(users.whoami.remote.aio()) == "ada"
        assert users.Teller().who.remote() == "ada"
    # A map or a generator that is read later is still hers.
    assert list(results) == ["ada"] * 3
    assert list(items) == ["ada"] * 2
    assert spawned.get(timeout=20) == "ada"
    assert users.whoami.remote() == "default"


def test_what_a_function_calls_belongs_to_its_user(running: Host) -> None:
    with minimodal.as_user("ada", priority=3):
        assert users.nested.remote() == ["ada 3", "ada 3"]
    with pytest.raises(InvalidError, match="not inside a function"):
        users.poses.remote()
    # A thread that outlives its call, or a lie about the parent, makes nobody else's call.
    assert users.lies.remote() == "default 0"


def test_the_block_is_of_this_thread_alone(running: Host) -> None:
    seen: list[str] = []
    with minimodal.as_user("ada"):
        thread = threading.Thread(target=lambda: seen.append(users.whoami.remote()))
        thread.start()
        thread.join()
        with minimodal.as_user("eve"):
            assert users.whoami.remote() == "eve"
        assert users.whoami.remote() == "ada"
    assert seen == ["default"]


@one_backend
def test_priority_orders_a_users_own_calls(running: Host, gate: Gate) -> None:
    calls = {}
    for name, priority in (("low", -1), ("none", 0), ("high", 5)):
        with minimodal.as_user("ada", priority=priority):
            calls[name] = users.one_at_a_time.spawn()
    assert gate.order(calls) == ["high", "none", "low"]


@one_backend
def test_another_users_call_passes_a_backlog(running: Host, gate: Gate) -> None:
    with minimodal.as_user("flood"):
        calls = {f"flood {n}": users.one_at_a_time.spawn() for n in range(5)}
    with minimodal.as_user("ada"):
        calls["ada"] = users.one_at_a_time.spawn()
    assert gate.order(calls).index("ada") <= 1


@one_backend
def test_a_quota_on_queued_calls_is_named_and_refuses_before_the_record(
    running: Host, gate: Gate
) -> None:
    minimodal.set_quota("ada", max_queued=2)
    with minimodal.as_user("ada"):
        kept = [users.one_at_a_time.spawn() for _ in range(2)]
        for refused in (users.one_at_a_time.spawn, users.one_at_a_time.remote):
            with pytest.raises(ResourceExhaustedError, match=r"'ada'.*quota max_queued.*user set"):
                refused()
        # At once and many: the quota holds also while calls are being recorded.
        with pytest.raises(ResourceExhaustedError):
            users.one_at_a_time.spawn_map([""] * 20)
    assert queued(running, "ada") == 2
    with minimodal.as_user("eve"):
        other = users.one_at_a_time.spawn()
    rows = running.engine.durable.store.history.find()
    found = asyncio.run_coroutine_threadsafe(_value(rows), running.loop).result(10)
    assert len([row for row in found if row.user == "ada" and not row.state.finished]) == 2
    gate.open()
    for call in (*kept, other):
        call.get(timeout=30)
    minimodal.set_quota("ada")


async def _value(awaited: object) -> list[minimodal.Error]:
    return await awaited  # type: ignore[misc,no-any-return]  # a coroutine


@one_backend
def test_a_quota_on_running_calls_holds_over_functions(running: Host) -> None:
    minimodal.set_quota("ada", max_running=2)
    with minimodal.as_user("ada"):
        calls = [users.at_once.spawn() for _ in range(4)] + [users.also.spawn() for _ in range(4)]
        spans = [call.get(timeout=60) for call in calls]
    changes = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    running_now = most = 0
    for _, change in changes:
        running_now += change
        most = max(most, running_now)
    assert most <= 2
    minimodal.set_quota("ada")


@one_backend
def test_shares_follow_weights(running: Host, gate: Gate) -> None:
    minimodal.set_quota("two", weight=2)
    minimodal.set_quota("four", weight=4)
    calls = {}
    for user in ("one", "two", "four"):
        with minimodal.as_user(user):
            calls |= {f"{user} {n}": users.one_at_a_time.spawn() for n in range(28)}
    first = Counter(name.split()[0] for name in gate.order(calls)[:49])
    assert first == {"four": 28, "two": 14, "one": 7}
    for user in ("two", "four"):
        minimodal.set_quota(user)


@pytest.mark.parametrize("wrong", ["", "x" * 101, "a\nb", None])
def test_a_wrong_user(wrong: str) -> None:
    with pytest.raises(InvalidError, match="a user is a name"), minimodal.as_user(wrong):
        pass


def test_a_wrong_priority() -> None:
    for wrong in (1.5, True, "high"):
        with (
            pytest.raises(InvalidError, match="priority is a whole number"),
            minimodal.as_user("ada", priority=wrong),  # type: ignore[arg-type]  # the mistake
        ):
            pass


@one_backend
@pytest.mark.parametrize("wrong", [{"weight": 0}, {"weight": "2"}, {"max_running": -1}])
def test_a_wrong_quota(running: Host, wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidError, match=next(iter(wrong))):
        minimodal.set_quota("ada", **wrong)  # type: ignore[arg-type]  # the mistake
