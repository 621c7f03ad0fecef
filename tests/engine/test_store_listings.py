"""The store on real files: dead letters, history, deployments, schedules."""

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
    ScheduleSpec,
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

# --- dead letters ---------------------------------------------------------------------------------


async def test_a_dead_letter_keeps_input_attempts_and_tracebacks(own: Home) -> None:
    async with open_store(own, "en-1", clock=ManualClock(now=10.0)) as store:
        await store.accept([call("a", payload=BIG)])
        await store.attempt_started("a", 1)
        await store.attempt_failed("a", 1, Failure("OSError", "one", "tb 1"), lost=False)
        await store.attempt_started("a", 2)
        await store.record("a", 2, ERROR)
        letter = await store.dead_letters.show("a")
        assert letter.input == BIG
        assert [(a.number, a.failure.traceback) for a in letter.attempts] == [
            (1, "tb 1"),
            (2, "Traceback: boom"),
        ]
        assert letter.info.error == "ValueError: boom"
        assert await store.history.collect_blobs(everyone_is_dead, grace=-60) == 0
        found = await store.outcome("a")
        assert found == Outcome(CallState.ERROR, failure=BOOM, attempts=2)


async def test_retry_makes_new_calls_and_leaves_the_outcomes(own: Home) -> None:
    async with open_store(own, "en-1") as store:
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


async def test_two_engines_retry_each_letter_once(own: Home) -> None:
    async with open_store(own, "en-1") as one, open_store(own, "en-2") as two:
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


async def test_purge_drops_inputs_and_keeps_outcomes(own: Home) -> None:
    clock = ManualClock(now=100.0)
    async with open_store(own, "en-1", clock=clock) as store:
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


async def test_listing_by_state_function_app_and_time(own: Home) -> None:
    clock = ManualClock(now=0.0)
    async with open_store(own, "en-1", clock=clock) as store:
        for number in range(10):
            clock.advance(1)
            function = "one/f" if number % 2 else "two/g"
            await store.accept([Call(f"{number}", function, Payload(b""))])
        await store.record("3", 0, OK)
        find = store.history.find
        assert [i.id for i in await find(limit=3)] == ["9", "8", "7"]
        assert [i.id for i in await find(app="one", limit=2)] == ["9", "7"]
        assert [i.id for i in await find(function="two/g", limit=2)] == ["8", "6"]
        assert [i.id for i in await find(states=[CallState.OK])] == ["3"]
        assert [i.id for i in await find(since=3.0, until=4.0)] == ["3", "2"]
        counts = await store.history.counts()
        assert counts["one/f", CallState.OK] == 1
        assert counts["two/g", CallState.QUEUED] == 5
        info, attempts = await store.history.show("3")
        assert (info.finished, info.state, attempts) == (10.0, CallState.OK, ())
        with pytest.raises(NotFoundError):
            await store.history.show("x")


async def test_attached_calls_are_noted_without_values(own: Home) -> None:
    attached = Call("a", "app/f", BIG)
    async with open_store(own, "en-1") as store:
        assert store.note(attached, ERROR, created=1.0, started=2.0)
        await store.accept([call("b")])
        info, _ = await store.history.show("a")
        assert (info.state, info.error, info.started) == (CallState.ERROR, "ValueError: boom", 2.0)
        assert not info.dead
        assert await blob_names(store) == set()


async def test_results_expire_then_rows_are_forgotten(own: Home) -> None:
    clock, day = ManualClock(now=0.0), 86_400.0
    kept = Retention(results=day, rows=3 * day, dead_letters=5 * day, attached=day)
    async with open_store(own, "en-1", clock=clock) as store:
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


async def test_deploy_rollback_stop(own: Home) -> None:
    def spec(name: str) -> FunctionSpec:
        return FunctionSpec("shop", name, ByName("m", name, "d"), schedule=ScheduleSpec(period=5.0))

    async with open_store(own, "en-1") as store:
        deployments = store.deployments
        assert await deployments.deploy("shop", [spec("a")], note="first") == 1
        assert await deployments.deploy("shop", [spec("a"), spec("b")]) == 2
        assert await deployments.deploy("other", []) == 1
    async with open_store(own, "en-2") as store:
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


async def test_f105_a_deployment_of_a_newer_minimodal_is_refused_by_name(own: Home) -> None:
    newer = json.dumps([{"app": "shop", "name": "f", "warp": 9}])
    async with open_store(own, "en-1") as store:
        await store.deployments.deploy("shop", [])
        await store.database.write(
            lambda c: c.execute("UPDATE deployments SET specs = ?", (newer,))
        )
        with pytest.raises(StateError, match=r"version 1 of the app 'shop'.*'warp'.*newer"):
            await store.deployments.current("shop")


# --- schedules ------------------------------------------------------------------------------------


async def test_f90_a_tick_and_its_call_are_one(own: Home) -> None:
    async with open_store(own, "en-1") as one, open_store(own, "en-2") as two:
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


async def test_files_are_private(own: Home, root: Path) -> None:
    async with open_store(own, "en-1") as store:
        await store.accept([call("a", payload=BIG)])
        files = [path for path in (root / "h").rglob("*") if path.is_file()]
        assert len(files) >= 4
        assert {path.stat().st_mode & 0o077 for path in files} == {0}
