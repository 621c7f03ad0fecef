"""F87 to F91: schedules, in a real engine, on a clock that the test moves."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest

from minimodal.backends.process import open_backend
from minimodal.clock import ManualClock
from minimodal.engine.engine import Engine
from minimodal.engine.nodes import Node
from minimodal.engine.objects import open_objects
from minimodal.engine.opening import open_engine
from minimodal.engine.ops import Caller
from minimodal.engine_lock import hold_engine_lock
from minimodal.errors import InvalidError, NotFoundError
from minimodal.home import Home, open_home
from minimodal.host import BackendSettings
from minimodal.policy import Cron, Period
from minimodal.protocols import Reply
from minimodal.spec_types import ByName, FunctionSpec, Scaling, ScheduleSpec
from minimodal.types import EMPTY, new_id

UTC = timezone.utc
HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def own(scratch: Path) -> Home:
    return open_home(scratch / new_id("h"))


@asynccontextmanager
async def engine_at(home: Home, clock: ManualClock) -> AsyncIterator[Engine]:
    """An engine; what counts here are the calls that ticks make, so no container is started."""
    engine_id = new_id("en")
    async with AsyncExitStack() as stack:
        stack.enter_context(hold_engine_lock(home, engine_id))
        objects = await stack.enter_async_context(open_objects(home, engine_id, clock))
        settings = BackendSettings(
            None, None, engine_id, objects.secrets.resolve, objects.volumes.mounted
        )
        backend = await stack.enter_async_context(open_backend(home, settings))
        nodes = (Node("local", 1.0, 1024),)
        yield await stack.enter_async_context(open_engine(backend, nodes, objects))


async def deploy(engine: Engine, **schedules: ScheduleSpec) -> None:
    """On record and open. Their calls stay in the queue."""
    never = Scaling(max_containers=0)
    specs = [
        FunctionSpec("shop", name, ByName("m", "f", "0" * 64), scaling=never, schedule=schedule)
        for name, schedule in schedules.items()
    ]
    await engine.durable.store.deployments.deploy("shop", specs)
    await engine.hosting.host("shop")


async def ran(engine: Engine, name: str = "report") -> list[float]:
    """When its calls were made, oldest first."""
    found = await engine.durable.store.history.find(function=f"shop/{name}", limit=100_000)
    return sorted(info.created for info in found)


async def ask(engine: Engine, op: str, **fields: object) -> dict[str, Any]:
    reply = engine.ops.find(op)(Caller(), fields, EMPTY)
    assert not isinstance(reply, Reply)
    return dict((await reply).fields)


MINUTELY = Cron("* * * * *", overlap=True).spec()


@pytest.mark.parametrize("jump", [HOUR, -HOUR, YEAR, -YEAR])
@pytest.mark.anyio
async def test_f87_the_wall_clock_jumps(own: Home, jump: float) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=MINUTELY)
        for minute in range(20):
            clock.advance(60.0)
            if minute == 10:
                clock.jump(jump)
            await engine.timetable.look()
        times = await ran(engine)
        assert len(set(times)) == len(times), "no tick twice"
        expected = 20 if jump in (HOUR, YEAR, -YEAR) else 10  # an hour back: its ticks have been
        assert expected - 1 <= len(times) <= 20, "one catch-up at most, and it goes on"


ZONES = ("Europe/Madrid", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC")


@pytest.mark.long
@pytest.mark.anyio
async def test_f88_a_local_tick_fires_once_through_gaps_and_overlaps(own: Home) -> None:
    """Ten years in five zones: every Sunday, as clocks change on Sundays in all of them.

    The other days are in tests/engine/test_cron.py, without an engine.
    """
    clock = ManualClock(NOON)
    schedules = {
        zone.replace("/", "_"): Cron("30 2 * * 0", timezone=zone, overlap=True).spec()
        for zone in ZONES
    }
    end = datetime(2036, 6, 15, 12, tzinfo=UTC).timestamp()
    async with engine_at(own, clock) as engine:
        await deploy(engine, **schedules)
        while clock.now() < end:
            upcoming = await engine.timetable.look()
            clock.advance(upcoming - clock.now())
        for zone in ZONES:
            times = await ran(engine, zone.replace("/", "_"))
            days = [datetime.fromtimestamp(t, ZoneInfo(zone)).date() for t in times]
            assert len(set(days)) == len(days), f"{zone}: twice on one day"
            apart = {(later - day).days for day, later in itertools.pairwise(days)}
            assert apart == {7}, zone
            assert len(days) in (521, 522), zone


@pytest.mark.parametrize("sleeps_monotonic", [0.0, 8 * HOUR])
@pytest.mark.parametrize(("catch_up", "more"), [(True, 1), (False, 0)])
@pytest.mark.anyio
async def test_f89_a_suspended_laptop(
    own: Home, sleeps_monotonic: float, catch_up: bool, more: int
) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as engine:
        hourly = Cron("0 * * * *", catch_up=catch_up, overlap=True).spec()
        await deploy(engine, report=hourly)
        clock.advance(sleeps_monotonic)
        clock.jump(8 * HOUR + 600 - sleeps_monotonic)  # awake ten minutes past the hour
        await engine.timetable.look()
        assert len(await ran(engine)) == more
        clock.advance(3000.0)
        await engine.timetable.look()
        assert len(await ran(engine)) == more + 1


@pytest.mark.parametrize(("catch_up", "more"), [(True, 1), (False, 0)])
@pytest.mark.anyio
async def test_f90_an_engine_that_was_down(own: Home, catch_up: bool, more: int) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=Cron("0 * * * *", catch_up=catch_up, overlap=True).spec())
        clock.advance(HOUR)
        await engine.timetable.look()
        assert len(await ran(engine)) == 1
    clock.advance(5 * HOUR + 600)
    async with engine_at(own, clock) as engine:
        await engine.hosting.host_all()
        await engine.timetable.look()
        await engine.timetable.look()
        assert len(await ran(engine)) == 1 + more


@pytest.mark.anyio
async def test_f90_two_engines_never_fire_twice(own: Home) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as one, engine_at(own, clock) as two:
        await deploy(one, report=MINUTELY)
        await two.hosting.host("shop")
        for _ in range(30):
            clock.advance(60.0)
            async with anyio.create_task_group() as both:
                both.start_soon(one.timetable.look)
                both.start_soon(two.timetable.look)
        times = await ran(one)
        assert len(times) == 30
        assert len(set(times)) == 30


@pytest.mark.anyio
async def test_a_tick_is_left_out_while_the_call_before_still_runs(own: Home) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=Cron("* * * * *").spec())
        for _ in range(5):
            clock.advance(60.0)
            await engine.timetable.look()
        [first] = await engine.durable.store.history.find()
        await ask(engine, "call.cancel", id=first.id)
        clock.advance(60.0)
        await engine.timetable.look()
        assert len(await ran(engine)) == 2


@pytest.mark.anyio
async def test_pause_resume_and_run_now_survive_a_restart(own: Home) -> None:
    clock = ManualClock(NOON)
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=MINUTELY)
        await ask(engine, "schedule.pause", key="shop/report")
    async with engine_at(own, clock) as engine:
        await engine.hosting.host_all()
        for _ in range(5):
            clock.advance(60.0)
            await engine.timetable.look()
        [row] = (await ask(engine, "schedule.list"))["schedules"]
        assert (row["paused"], row["next"], row["hosted"]) == (True, None, True)
        assert row["upcoming"] == []
        assert await ran(engine) == []
        call_id = (await ask(engine, "schedule.run", key="shop/report"))["id"]
        assert [info.id for info in await engine.durable.store.history.find()] == [call_id]
        await ask(engine, "schedule.resume", key="shop/report")
        clock.advance(60.0)
        await engine.timetable.look()
        assert len(await ran(engine)) == 2, "what the pause left out is not made up for"
        [row] = (await ask(engine, "schedule.list"))["schedules"]
        assert row["next"] == clock.now() + 60.0
        assert row["upcoming"] == [clock.now() + 60.0 * n for n in range(1, 6)]
        with pytest.raises(NotFoundError):
            await ask(engine, "schedule.run", key="shop/nothing")


@pytest.mark.anyio
async def test_a_period_counts_from_its_deployment(own: Home) -> None:
    clock = ManualClock(NOON)
    hourly = Period(hours=1, overlap=True).spec()
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=hourly)
        clock.advance(0.9 * HOUR)
        await engine.timetable.look()
    async with engine_at(own, clock) as engine:
        await deploy(engine, report=hourly)
        clock.advance(0.9 * HOUR)
        await engine.timetable.look()
        assert await ran(engine) == [], "the new deployment starts it anew"
        clock.advance(0.1 * HOUR)
        await engine.timetable.look()
        assert len(await ran(engine)) == 1


def test_f91_no_time_zone_data() -> None:
    code = (
        "import sys; sys.modules['tzdata'] = None\n"
        "import minimodal; minimodal.Cron('0 9 * * *', timezone='Europe/Madrid')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONTZPATH": "", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "install the package tzdata" in done.stderr


@pytest.mark.parametrize("bad", ["61 * * * *", "* * *", "0 0 30 2 *", "x"])
def test_f91_a_bad_expression_fails_where_it_is_written(bad: str) -> None:
    with pytest.raises(InvalidError):
        Cron(bad)
