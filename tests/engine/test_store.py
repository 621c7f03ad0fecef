"""The store on real files: a call's life and its takeover."""

from __future__ import annotations

import time

import anyio
import pytest

from minimodal.clock import ManualClock
from minimodal.engine.store import Store, open_store
from minimodal.errors import NotFoundError, StateError
from minimodal.home import Home
from minimodal.types import (
    EMPTY,
    ByName,
    Call,
    CallState,
    FunctionSpec,
    Outcome,
    Payload,
    Resources,
)
from tests.engine.stored_calls import (
    BIG,
    BOOM,
    ERROR,
    OK,
    blob_names,
    call,
    everyone_is_dead,
)

pytestmark = pytest.mark.anyio

# --- a call's life --------------------------------------------------------------------------------


async def test_an_accepted_call_and_its_outcome_survive_a_restart(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        assert await store.accept([call("a"), call("b")]) == frozenset()
        assert await store.attempt_started("a", 1)
        assert await store.record("a", 1, OK)
        assert await store.outcome("b") is None
    async with open_store(own, "en-2") as store:
        assert await store.outcome("a") == OK
        assert await store.outcome("b") is None
        with pytest.raises(NotFoundError):
            await store.outcome("c")


async def test_for_people_no_file_of_a_value_is_read(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a"), call("b", payload=BIG)])
        for each in "ab":
            assert await store.attempt_started(each, 1)
        buffered = Payload(b"value", (b"q" * 400_000,))
        assert await store.record("a", 1, Outcome(CallState.OK, buffered))
        assert await store.record("b", 1, ERROR)
        for digest in await blob_names(store):
            store.blobs.delete(digest)
        assert await store.small("a") == (EMPTY, Payload(b"value"))
        assert (await store.small("b"))[0] is None
        with pytest.raises(NotFoundError):
            await store.small("c")


async def test_a_call_submitted_twice_is_accepted_once(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        assert await store.accept([call("a")]) == frozenset()
        assert await store.accept([call("a"), call("b")]) == {"a"}
        assert await store.attempt_started("a", 1)
        assert await store.record("a", 1, OK)
        assert await store.accept([call("a")]) == {"a"}
        assert await store.outcome("a") == OK


async def test_f52_the_first_outcome_wins_and_never_changes(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
        await store.attempt_started("a", 1)
        won: list[Outcome] = []
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                outcome = Outcome(CallState.OK, Payload(b"%d" % number))
                tasks.start_soon(_record, store, "a", 1, outcome, won)
        assert len(won) == 1
        assert not await store.record("a", 1, ERROR)
        assert not await store.record("a", None, Outcome(CallState.CANCELLED))
        assert await store.outcome("a") == won[0]


async def _record(
    store: Store, id: str, attempt: int, outcome: Outcome, won: list[Outcome]
) -> None:
    if await store.record(id, attempt, outcome):
        won.append(outcome)


async def test_an_answer_of_an_earlier_attempt_is_late(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
        assert await store.attempt_started("a", 1)
        assert not await store.attempt_started("a", 1)
        assert await store.attempt_failed("a", 1, BOOM, lost=True)
        assert not await store.attempt_failed("a", 1, BOOM, lost=True)
        assert await store.attempt_started("a", 2)
        assert not await store.record("a", 1, OK)
        assert await store.record("a", 2, Outcome(CallState.OK, Payload(b"second"), attempts=2))
        found = await store.outcome("a")
        assert found
        assert (found.value, found.attempts) == (Payload(b"second"), 2)


async def test_user_errors_and_losses_are_counted_apart(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
        for attempt, lost in enumerate([True, False, True], 1):
            assert await store.attempt_started("a", attempt)
            await store.attempt_failed("a", attempt, BOOM, lost=lost, retry_at=99.0)
    async with open_store(own, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert (found.attempt, found.errors, found.losses) == (3, 1, 2)
        assert found.not_before == 99.0


async def test_cancel_by_a_stranger_drops_the_input(own: Home) -> None:
    cancelled = Outcome(CallState.CANCELLED)
    async with open_store(own, "en-1") as mine, open_store(own, "en-2") as other:
        await mine.accept([call("a")])
        assert await other.record("a", None, cancelled)
        assert not await mine.attempt_started("a", 1)
        assert await mine.outcome("a") == Outcome(CallState.CANCELLED, attempts=0)
        assert await mine.dead_letters.count() == 0


async def test_large_parts_go_to_blobs_and_come_back(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a", payload=BIG)])
        assert len(await blob_names(store)) == 2
        await store.attempt_started("a", 1)
        await store.record("a", 1, Outcome(CallState.OK, Payload(b"", (b"r" * 300_000,))))
        found = await store.outcome("a")
        assert found
        assert found.value == Payload(b"", (b"r" * 300_000,))
        assert await store.history.collect_blobs(everyone_is_dead, grace=-60) == 2
        assert len(await blob_names(store)) == 1
        assert await store.outcome("a") == found
    assert own.database.stat().st_size < 200_000


async def test_values_of_every_shape_come_back(own: Home) -> None:
    shapes = [
        Payload(b""),
        Payload(bytearray(b"x"), (b"", memoryview(b"y"))),
        Payload(b"\0" * 262_144),
        Payload(b"\1" * 262_145),
        Payload(b"", (b"z" * 200_000, b"z" * 200_000)),
    ]
    async with open_store(own, "en-1") as store:
        for number, payload in enumerate(shapes):
            await store.accept([call(f"{number}", payload=payload)])
            await store.record(f"{number}", 0, Outcome(CallState.OK, payload))
            found = await store.outcome(f"{number}")
            assert found
            assert found.value == payload
    async with open_store(own, "en-2") as store:
        await store.accept([call(f"again-{n}", payload=p) for n, p in enumerate(shapes)])
    async with open_store(own, "en-3") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.payload for stored in taken] == shapes


async def test_a_bad_call_does_not_spoil_its_neighbours(own: Home) -> None:
    bad = Call("bad", "app/f", Payload(b""), priority=10**30)
    worse = Call("worse", "app/\ud800", Payload(b""))
    failed = []

    async def accept(store: Store, one: Call) -> None:
        try:
            await store.accept([one])
        except (OverflowError, UnicodeEncodeError):
            failed.append(one.id)

    async with open_store(own, "en-1") as store, anyio.create_task_group() as tasks:
        for one in [call("a"), bad, call("b"), worse, call("c")]:
            tasks.start_soon(accept, store, one)
    assert sorted(failed) == ["bad", "worse"]
    async with open_store(own, "en-2") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.id for stored in taken] == ["a", "b", "c"]


async def test_many_writes_share_a_commit(own: Home) -> None:
    async with open_store(own, "en-1") as store, anyio.create_task_group() as tasks:
        for number in range(500):
            tasks.start_soon(store.accept, [call(f"{number}")])
    assert store.database.commits < 50


@pytest.mark.parametrize("instant", range(8))
async def test_f34_a_cancelled_accept_has_accepted_nothing(own: Home, instant: int) -> None:
    accepted: set[str] = set()

    async def accept(store: Store, id: str) -> None:
        await store.accept([call(id)])
        accepted.add(id)

    async with open_store(own, "en-1") as store:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(accept, store, f"{number}")
            for _ in range(instant):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        assert {info.id for info in await store.history.find()} == accepted


async def test_bad_parameter_or_other_api_misuse_under_many_small_operations(own: Home) -> None:
    done = 0

    async def hand_back(store: Store) -> None:
        nonlocal done
        for _ in range(6):
            await store.recovery.hand_back(["a"])
            done += 1
            end = time.perf_counter() + 0.000_05
            while time.perf_counter() < end:
                pass  # the fault: the loop frees results while the thread is at work

    async with open_store(own, "en-1") as store, anyio.create_task_group() as tasks:
        for _ in range(1500):
            tasks.start_soon(hand_back, store)
    assert done == 6 * 1500


async def test_writes_after_close_are_refused(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        pass
    with pytest.raises(StateError, match="closed"):
        await store.accept([call("a")])
    with pytest.raises(StateError, match="closed"):
        await store.outcome("a")
    assert not store.note(call("a"), OK, created=1.0, started=2.0)


# --- takeover -------------------------------------------------------------------------------------


async def test_f38_calls_of_a_dead_engine_are_taken_over_by_exactly_one(own: Home) -> None:
    async with open_store(own, "en-dead") as store:
        await store.accept([call(f"{n:04}") for n in range(1000)])
        await store.attempt_started("0000", 1)
    async with open_store(own, "en-live") as live:
        await live.accept([call("live")])
        taken: list[str] = []
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(_take_all, own, f"en-{number}", taken)
        assert sorted(taken) == [f"{n:04}" for n in range(1000)]
        assert await live.attempt_started("live", 1)


async def _take_all(own: Home, engine: str, taken: list[str]) -> None:
    def is_alive(other: str) -> bool:
        return other != "en-dead"

    async with open_store(own, engine) as store:
        while found := await store.recovery.take_over(is_alive, limit=100):
            taken += [stored.call.id for stored in found]


async def test_an_engine_taken_for_dead_can_change_nothing_more(own: Home) -> None:
    async with open_store(own, "en-frozen") as frozen, open_store(own, "en-2") as other:
        await frozen.accept([call("a")])
        await frozen.attempt_started("a", 1)
        (found,) = await other.recovery.take_over(everyone_is_dead)
        assert (found.attempt, found.losses) == (1, 1)
        assert not await frozen.record("a", 1, OK)
        assert not await frozen.attempt_failed("a", 1, BOOM, lost=True)
        assert await other.attempt_started("a", 2)
        assert await other.record("a", 2, OK)


async def test_f41_a_call_that_kills_its_engine_is_counted(own: Home) -> None:
    async with open_store(own, "en-0") as store:
        await store.accept([call("a")])
        await store.attempt_started("a", 1)
    for number in (1, 2, 3):
        async with open_store(own, f"en-{number}") as store:
            (found,) = await store.recovery.take_over(everyone_is_dead)
            assert found.losses == number
            await store.attempt_started("a", number + 1)
    async with open_store(own, "en-4") as store:
        await store.recovery.take_over(everyone_is_dead)
        await store.record("a", 4, Outcome(CallState.LOST, failure=BOOM), lost=True)
        letter = await store.dead_letters.show("a")
        assert letter.input == Payload(b"input")
        assert [(a.number, a.lost) for a in letter.attempts] == [(n, True) for n in (1, 2, 3, 4)]
        assert "en-0" in letter.attempts[0].failure.message


async def test_handed_back_calls_count_no_loss(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
        await store.attempt_started("a", 1)
        await store.recovery.hand_back(["a"])
        assert not await store.record("a", 1, OK)
    async with open_store(own, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert (found.losses, found.attempt) == (0, 1)


async def test_a_call_whose_input_is_lost_ends_and_does_not_stop_the_others(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a", payload=BIG), call("b")])
        for digest in await blob_names(store):
            store.blobs.delete(digest)
    async with open_store(own, "en-2") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.id for stored in taken] == ["b"]
        found = await store.outcome("a")
        assert found
        assert found.state is CallState.LOST


async def test_the_whole_call_comes_back(own: Home) -> None:
    full = Call("a", "app/Cls~v", Payload(b"x"), "m", "ann", 5, "fc-p", 2, stream=True)
    full.durable = True
    async with open_store(own, "en-1", clock=ManualClock(now=7.0)) as store:
        await store.accept([full])
    async with open_store(own, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert all(getattr(found.call, name) == getattr(full, name) for name in Call.__slots__)
        assert found.created == 7.0


async def test_specs_and_pins_survive(own: Home) -> None:
    spec = FunctionSpec("app", "f", ByName("m", "f", "d"), resources=Resources(cpu=2))
    async with open_store(own, "en-1") as store:
        await store.recovery.put_spec(spec)
        digest = store.blobs.put(b"function")
        await store.recovery.pin([digest])
        assert await store.history.collect_blobs(lambda engine: True, grace=-60) == 0
    async with open_store(own, "en-2") as store:
        assert await store.recovery.spec("app/f") == spec
        with pytest.raises(NotFoundError):
            await store.recovery.spec("app/g")
        assert await store.history.collect_blobs(everyone_is_dead, grace=-60) == 1
