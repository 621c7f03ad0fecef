"""The store on real files: a call's life, takeover, dead letters, history, deployments, schedules."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest

from minimodal.clock import ManualClock
from minimodal.engine.history import Retention
from minimodal.engine.store import Store, open_store
from minimodal.errors import InvalidError, NotFoundError, OutputExpiredError, StateError
from minimodal.home import Home
from minimodal.types import (
    ByName,
    Call,
    CallState,
    Failure,
    FunctionSpec,
    Outcome,
    Payload,
    Resources,
    ScheduleSpec,
)

pytestmark = pytest.mark.anyio

BOOM = Failure("ValueError", "boom", "Traceback: boom", Payload(b"pickled error"))
OK = Outcome(CallState.OK, Payload(b"value"))
ERROR = Outcome(CallState.ERROR, failure=BOOM)
BIG = Payload(b"p" * 300_000, (b"q" * 400_000, b"small"))


INPUT = Payload(b"input")


def call(id: str, function: str = "app/f", payload: Payload = INPUT) -> Call:
    return Call(id, function, payload, durable=True)


def everyone_is_dead(_: str) -> bool:
    return False


async def blob_names(store: Store) -> set[str]:
    return set(store.blobs.digests())


# --- a call's life --------------------------------------------------------------------------------


async def test_an_accepted_call_and_its_outcome_survive_a_restart(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        assert await store.accept([call("a"), call("b")]) == frozenset()
        assert await store.attempt_started("a", 1)
        assert await store.record("a", 1, OK)
        assert await store.outcome("b") is None
    async with open_store(home, "en-2") as store:
        assert await store.outcome("a") == OK
        assert await store.outcome("b") is None
        with pytest.raises(NotFoundError):
            await store.outcome("c")


async def test_a_call_submitted_twice_is_accepted_once(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        assert await store.accept([call("a")]) == frozenset()
        assert await store.accept([call("a"), call("b")]) == {"a"}
        assert await store.attempt_started("a", 1)
        assert await store.record("a", 1, OK)
        assert await store.accept([call("a")]) == {"a"}
        assert await store.outcome("a") == OK


async def test_f52_the_first_outcome_wins_and_never_changes(home: Home) -> None:
    async with open_store(home, "en-1") as store:
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


async def test_an_answer_of_an_earlier_attempt_is_late(home: Home) -> None:
    async with open_store(home, "en-1") as store:
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


async def test_user_errors_and_losses_are_counted_apart(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        await store.accept([call("a")])
        for attempt, lost in enumerate([True, False, True], 1):
            assert await store.attempt_started("a", attempt)
            await store.attempt_failed("a", attempt, BOOM, lost=lost, retry_at=99.0)
    async with open_store(home, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert (found.attempt, found.errors, found.losses) == (3, 1, 2)
        assert found.not_before == 99.0


async def test_cancel_by_a_stranger_drops_the_input(home: Home) -> None:
    cancelled = Outcome(CallState.CANCELLED)
    async with open_store(home, "en-1") as mine, open_store(home, "en-2") as other:
        await mine.accept([call("a")])
        assert await other.record("a", None, cancelled)
        assert not await mine.attempt_started("a", 1)
        assert await mine.outcome("a") == Outcome(CallState.CANCELLED, attempts=0)
        assert await mine.dead_letters.count() == 0


async def test_large_parts_go_to_blobs_and_come_back(home: Home) -> None:
    async with open_store(home, "en-1") as store:
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
    assert home.database.stat().st_size < 200_000


async def test_values_of_every_shape_come_back(home: Home) -> None:
    shapes = [
        Payload(b""),
        Payload(bytearray(b"x"), (b"", memoryview(b"y"))),
        Payload(b"\0" * 262_144),
        Payload(b"\1" * 262_145),
        Payload(b"", (b"z" * 200_000, b"z" * 200_000)),
    ]
    async with open_store(home, "en-1") as store:
        for number, payload in enumerate(shapes):
            await store.accept([call(f"{number}", payload=payload)])
            await store.record(f"{number}", 0, Outcome(CallState.OK, payload))
            found = await store.outcome(f"{number}")
            assert found
            assert found.value == payload
    async with open_store(home, "en-2") as store:
        await store.accept([call(f"again-{n}", payload=p) for n, p in enumerate(shapes)])
    async with open_store(home, "en-3") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.payload for stored in taken] == shapes


async def test_a_bad_call_does_not_spoil_its_neighbours(home: Home) -> None:
    bad = Call("bad", "app/f", Payload(b""), priority=10**30)
    worse = Call("worse", "app/\ud800", Payload(b""))
    failed = []

    async def accept(store: Store, one: Call) -> None:
        try:
            await store.accept([one])
        except (OverflowError, UnicodeEncodeError):
            failed.append(one.id)

    async with open_store(home, "en-1") as store, anyio.create_task_group() as tasks:
        for one in [call("a"), bad, call("b"), worse, call("c")]:
            tasks.start_soon(accept, store, one)
    assert sorted(failed) == ["bad", "worse"]
    async with open_store(home, "en-2") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.id for stored in taken] == ["a", "b", "c"]


async def test_many_writes_share_a_commit(home: Home) -> None:
    async with open_store(home, "en-1") as store, anyio.create_task_group() as tasks:
        for number in range(500):
            tasks.start_soon(store.accept, [call(f"{number}")])
    assert store.database.commits < 50


@pytest.mark.parametrize("instant", range(6))
async def test_f34_a_cancelled_accept_has_accepted_nothing(home: Home, instant: int) -> None:
    async with open_store(home, "en-1") as store:
        async with anyio.create_task_group() as tasks:
            for number in range(50):
                tasks.start_soon(store.accept, [call(f"{number}")])
            for _ in range(instant):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
        left = await store.history.find()
        assert left == []


async def test_writes_after_close_are_refused(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        pass
    with pytest.raises(StateError, match="closed"):
        await store.accept([call("a")])
    with pytest.raises(StateError, match="closed"):
        await store.outcome("a")
    assert not store.note(call("a"), OK, created=1.0, started=2.0)


# --- takeover -------------------------------------------------------------------------------------


async def test_f38_calls_of_a_dead_engine_are_taken_over_by_exactly_one(home: Home) -> None:
    async with open_store(home, "en-dead") as store:
        await store.accept([call(f"{n:04}") for n in range(1000)])
        await store.attempt_started("0000", 1)
    async with open_store(home, "en-live") as live:
        await live.accept([call("live")])
        taken: list[str] = []
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(_take_all, home, f"en-{number}", taken)
        assert sorted(taken) == [f"{n:04}" for n in range(1000)]
        assert await live.attempt_started("live", 1)


async def _take_all(home: Home, engine: str, taken: list[str]) -> None:
    def is_alive(other: str) -> bool:
        return other != "en-dead"

    async with open_store(home, engine) as store:
        while found := await store.recovery.take_over(is_alive, limit=100):
            taken += [stored.call.id for stored in found]


async def test_an_engine_taken_for_dead_can_change_nothing_more(home: Home) -> None:
    async with open_store(home, "en-frozen") as frozen, open_store(home, "en-2") as other:
        await frozen.accept([call("a")])
        await frozen.attempt_started("a", 1)
        (found,) = await other.recovery.take_over(everyone_is_dead)
        assert (found.attempt, found.losses) == (1, 1)
        assert not await frozen.record("a", 1, OK)
        assert not await frozen.attempt_failed("a", 1, BOOM, lost=True)
        assert await other.attempt_started("a", 2)
        assert await other.record("a", 2, OK)


async def test_f41_a_call_that_kills_its_engine_is_counted(home: Home) -> None:
    async with open_store(home, "en-0") as store:
        await store.accept([call("a")])
        await store.attempt_started("a", 1)
    for number in (1, 2, 3):
        async with open_store(home, f"en-{number}") as store:
            (found,) = await store.recovery.take_over(everyone_is_dead)
            assert found.losses == number
            await store.attempt_started("a", number + 1)
    async with open_store(home, "en-4") as store:
        await store.recovery.take_over(everyone_is_dead)
        await store.record("a", 4, Outcome(CallState.LOST, failure=BOOM), lost=True)
        letter = await store.dead_letters.show("a")
        assert letter.input == Payload(b"input")
        assert [(a.number, a.lost) for a in letter.attempts] == [(n, True) for n in (1, 2, 3, 4)]
        assert "en-0" in letter.attempts[0].failure.message


async def test_handed_back_calls_count_no_loss(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        await store.accept([call("a")])
        await store.attempt_started("a", 1)
        await store.recovery.hand_back(["a"])
        assert not await store.record("a", 1, OK)
    async with open_store(home, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert (found.losses, found.attempt) == (0, 1)


async def test_a_call_whose_input_is_lost_ends_and_does_not_stop_the_others(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        await store.accept([call("a", payload=BIG), call("b")])
        for digest in await blob_names(store):
            store.blobs.delete(digest)
    async with open_store(home, "en-2") as store:
        taken = await store.recovery.take_over(everyone_is_dead)
        assert [stored.call.id for stored in taken] == ["b"]
        found = await store.outcome("a")
        assert found
        assert found.state is CallState.LOST


async def test_the_whole_call_comes_back(home: Home) -> None:
    full = Call("a", "app/Cls~v", Payload(b"x"), "m", "ann", 5, "fc-p", 2, True, True, "map-1", 7)
    async with open_store(home, "en-1", clock=ManualClock(now=7.0)) as store:
        await store.accept([full])
    async with open_store(home, "en-2") as store:
        (found,) = await store.recovery.take_over(everyone_is_dead)
        assert found.call == full
        assert found.created == 7.0


async def test_specs_and_pins_survive(home: Home) -> None:
    spec = FunctionSpec("app", "f", ByName("m", "f", "d"), resources=Resources(cpu=2))
    async with open_store(home, "en-1") as store:
        await store.recovery.put_spec(spec)
        digest = store.blobs.put(b"function")
        await store.recovery.pin([digest])
        assert await store.history.collect_blobs(lambda engine: True, grace=-60) == 0
    async with open_store(home, "en-2") as store:
        assert await store.recovery.spec("app/f") == spec
        with pytest.raises(NotFoundError):
            await store.recovery.spec("app/g")
        assert await store.history.collect_blobs(everyone_is_dead, grace=-60) == 1


# --- dead letters ---------------------------------------------------------------------------------


async def test_a_dead_letter_keeps_input_attempts_and_tracebacks(home: Home) -> None:
    async with open_store(home, "en-1", clock=ManualClock(now=10.0)) as store:
        await store.accept([call("a", payload=BIG)])
        await store.attempt_started("a", 1)
        await store.attempt_failed(
            "a", 1, Failure("OSError", "one", "tb 1"), lost=False, place="ct-1"
        )
        await store.attempt_started("a", 2)
        await store.record("a", 2, ERROR, place="ct-2")
        letter = await store.dead_letters.show("a")
        assert letter.input == BIG
        assert [(a.number, a.place, a.failure.traceback) for a in letter.attempts] == [
            (1, "ct-1", "tb 1"),
            (2, "ct-2", "Traceback: boom"),
        ]
        assert letter.info.error == "ValueError: boom"
        assert await store.history.collect_blobs(everyone_is_dead, grace=-60) == 0
        found = await store.outcome("a")
        assert found == Outcome(CallState.ERROR, failure=BOOM, attempts=2)


async def test_retry_makes_new_calls_and_leaves_the_outcomes(home: Home) -> None:
    async with open_store(home, "en-1") as store:
        for id, function in [("a", "app/f"), ("b", "app/f"), ("c", "app/g")]:
            await store.accept([call(id, function, BIG)])
            await store.record(id, 0, ERROR)
        (again,) = await store.dead_letters.retry(ids=["a"])
        assert again.call.payload == BIG
        assert again.call.id != "a"
        assert await store.dead_letters.retry(ids=["a"]) == []
        assert await store.dead_letters.retry(ids=["unknown"]) == []
        (other,) = await store.dead_letters.retry(function="app/f")
        assert [info.id for info in await store.dead_letters.find()] == ["c"]
        assert await store.outcome("a") == Outcome(CallState.ERROR, failure=BOOM, attempts=0)
        assert await store.attempt_started(again.call.id, 1)
        assert await store.record(again.call.id, 1, OK)
        info, _ = await store.history.show(other.call.id)
        assert info.retry_of == "b"
        assert len(await store.dead_letters.retry()) == 1
        assert await store.dead_letters.count() == 0


async def test_two_engines_retry_each_letter_once(home: Home) -> None:
    async with open_store(home, "en-1") as one, open_store(home, "en-2") as two:
        await one.accept([call(f"{n}") for n in range(100)])
        for number in range(100):
            await one.record(f"{number}", 0, ERROR)
        made: list[int] = []

        async def retry(store: Store) -> None:
            while found := await store.dead_letters.retry(limit=7):
                made.append(len(found))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(retry, one)
            tasks.start_soon(retry, two)
        assert sum(made) == 100


async def test_purge_drops_inputs_and_keeps_outcomes(home: Home) -> None:
    clock = ManualClock(now=100.0)
    async with open_store(home, "en-1", clock=clock) as store:
        await store.accept([call("a"), call("b", "app/g")])
        await store.record("a", 0, ERROR)
        clock.advance(10)
        await store.record("b", 0, ERROR)
        assert await store.dead_letters.purge(before=105.0) == 1
        assert await store.dead_letters.purge(function="app/f") == 0
        assert await store.dead_letters.purge(ids=["b"]) == 1
        with pytest.raises(NotFoundError):
            await store.dead_letters.show("b")
        assert (await store.outcome("b")) is not None


# --- history --------------------------------------------------------------------------------------


async def test_listing_by_state_function_app_user_and_time(home: Home) -> None:
    clock = ManualClock(now=0.0)
    async with open_store(home, "en-1", clock=clock) as store:
        for number in range(10):
            clock.advance(1)
            function = "one/f" if number % 2 else "two/g"
            await store.accept([Call(f"{number}", function, Payload(b""), user=f"u{number % 3}")])
        await store.record("3", 0, OK)
        find = store.history.find
        assert [i.id for i in await find(limit=3)] == ["9", "8", "7"]
        assert [i.id for i in await find(app="one", limit=2)] == ["9", "7"]
        assert [i.id for i in await find(function="two/g", user="u0")] == ["6", "0"]
        assert [i.id for i in await find(states=[CallState.OK])] == ["3"]
        assert [i.id for i in await find(since=3.0, until=4.0)] == ["3", "2"]
        counts = await store.history.counts()
        assert counts["one/f", CallState.OK] == 1
        assert counts["two/g", CallState.QUEUED] == 5
        info, attempts = await store.history.show("3")
        assert (info.finished, info.state, attempts) == (10.0, CallState.OK, ())
        with pytest.raises(NotFoundError):
            await store.history.show("x")


async def test_attached_calls_are_noted_without_values(home: Home) -> None:
    attached = Call("a", "app/f", BIG)
    async with open_store(home, "en-1") as store:
        assert store.note(attached, ERROR, created=1.0, started=2.0)
        await store.accept([call("b")])
        info, _ = await store.history.show("a")
        assert (info.state, info.error, info.started) == (CallState.ERROR, "ValueError: boom", 2.0)
        assert not info.dead
        assert await blob_names(store) == set()


async def test_results_expire_then_rows_are_forgotten(home: Home) -> None:
    clock, day = ManualClock(now=0.0), 86_400.0
    kept = Retention(results=day, rows=3 * day, dead_letters=5 * day, attached=day)
    async with open_store(home, "en-1", clock=clock) as store:
        await store.accept([call("ok"), call("dead"), call("waiting")])
        await store.recovery.put_spec(FunctionSpec("app", "f", ByName("m", "f", "d")))
        await store.record("ok", 0, OK)
        await store.attempt_started("dead", 1)
        await store.record("dead", 1, ERROR)
        store.note(Call("attached", "app/f", Payload(b"")), OK, created=0.0, started=None)
        assert await store.history.expire(kept) == 0
        clock.advance(2 * day)
        assert await store.history.expire(kept) == 1  # the attached one
        with pytest.raises(OutputExpiredError):
            await store.outcome("ok")
        assert await store.dead_letters.count() == 1
        clock.advance(2 * day)
        assert await store.history.expire(kept) == 1
        with pytest.raises(NotFoundError):
            await store.outcome("ok")
        clock.advance(2 * day)
        assert await store.history.expire(kept) == 1
        assert [info.id for info in await store.history.find()] == ["waiting"]
        await store.recovery.spec("app/f")
        await store.record("waiting", 0, OK)
        clock.advance(9 * day)
        await store.history.expire(kept)
        with pytest.raises(NotFoundError):
            await store.recovery.spec("app/f")


# --- deployments ----------------------------------------------------------------------------------


async def test_deploy_rollback_stop(home: Home) -> None:
    def spec(name: str) -> FunctionSpec:
        return FunctionSpec("shop", name, ByName("m", name, "d"), schedule=ScheduleSpec(period=5.0))

    async with open_store(home, "en-1") as store:
        deployments = store.deployments
        assert await deployments.deploy("shop", [spec("a")], note="first") == 1
        assert await deployments.deploy("shop", [spec("a"), spec("b")]) == 2
        assert await deployments.deploy("other", []) == 1
    async with open_store(home, "en-2") as store:
        deployments = store.deployments
        assert (await deployments.current("shop")).specs == (spec("a"), spec("b"))
        assert await deployments.rollback("shop") == 3
        current = await deployments.current("shop")
        assert (current.specs, current.note) == ((spec("a"),), "rollback to version 1")
        assert [(d.version, d.current) for d in await deployments.history("shop")] == [
            (3, True),
            (2, False),
            (1, False),
        ]
        assert [d.app for d in await deployments.running()] == ["other", "shop"]
        await deployments.stop("shop")
        assert [d.app for d in await deployments.running()] == ["other"]
        with pytest.raises(NotFoundError, match="'shop'"):
            await deployments.current("shop")
        assert await deployments.rollback("shop", 2) == 4
        for wrong in (deployments.stop("x"), deployments.rollback("shop", 99)):
            with pytest.raises(NotFoundError):
                await wrong
        with pytest.raises(NotFoundError):
            await deployments.rollback("other")
        with pytest.raises(InvalidError):
            await deployments.deploy(
                "shop", [FunctionSpec("shop", "x", ByName("m", "x", "d"), object())]
            )


async def test_f105_a_deployment_of_a_newer_minimodal_is_refused_by_name(home: Home) -> None:
    newer = json.dumps([{"app": "shop", "name": "f", "warp": 9}])
    async with open_store(home, "en-1") as store:
        await store.deployments.deploy("shop", [])
        await store.database.write(
            lambda c: c.execute("UPDATE deployments SET specs = ?", (newer,))
        )
        with pytest.raises(StateError, match=r"version 1 of the app 'shop'.*'warp'.*newer"):
            await store.deployments.current("shop")


# --- schedules ------------------------------------------------------------------------------------


async def test_f90_a_tick_and_its_call_are_one(home: Home) -> None:
    async with open_store(home, "en-1") as one, open_store(home, "en-2") as two:
        await one.schedules.start_from("app/f", 5.0)
        await two.schedules.start_from("app/f", 6.0)
        assert await one.schedules.last("app/f") == (5.0, None)
        assert not await one.schedules.tick("app/f", 5.0, await one.row_of(call("early")))
        won = []

        async def tick(store: Store, id: str) -> None:
            if await store.schedules.tick("app/f", 10.0, await store.row_of(call(id))):
                won.append(id)

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(tick, one if number % 2 else two, f"{number}")
        assert len(won) == 1
        assert [info.id for info in await one.history.find()] == won
        assert await one.schedules.tick("app/f", 20.0, None)
        assert await two.schedules.last("app/f") == (20.0, won[0])
        await two.schedules.forget("app/f")
        assert await one.schedules.last("app/f") is None


async def test_files_are_private(home: Home, tmp_path: Path) -> None:
    async with open_store(home, "en-1") as store:
        await store.accept([call("a", payload=BIG)])
        files = [path for path in (tmp_path / "h").rglob("*") if path.is_file()]
        assert len(files) >= 4
        assert {path.stat().st_mode & 0o077 for path in files} == {0}
