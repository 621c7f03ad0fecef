"""`open_engine`: the engine with its store and its services, from its start to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import NamedTuple

import anyio

from minimodal.protocols import Backend

from . import build_ops
from .admin_ops import AdminOps
from .durable import Durable
from .engine import Engine
from .history import Retention
from .hosting import Hosting
from .nodes import Node
from .objects import Objects
from .quotas import QuotaOps
from .store import Durability, open_store
from .tally import SLICE
from .tenants import Tenants
from .timetable import Timetable

CHECK_INTERVAL = 2.0  # seconds between two looks at whether we still hold our lock
CLOSE_WITHIN = 10.0  # seconds for the last words to the store


class Settings(NamedTuple):
    """What an engine is told. `max_queued`: calls that may wait at one time; None: any number."""

    durability: Durability = "normal"
    max_queued: int | None = None
    retention: Retention = Retention()


DEFAULT = Settings()


@asynccontextmanager
async def open_engine(
    backend: Backend,
    nodes: tuple[Node, ...],
    objects: Objects,
    *,
    settings: Settings = DEFAULT,
    check: Callable[[], None] = lambda: None,
) -> AsyncIterator[Engine]:
    """An engine over an open backend, for the length of the block. Leaving it ends all containers.

    `nodes`: the cpu and memory that its containers may use together. `engine_id`: its lock is held.
    `check` is called every few seconds; the engine stops with what it raises. A service that raises
    stops it too: it is never half alive.
    """
    clock, home = objects.clock, objects.home
    async with (
        open_store(home, objects.engine, clock=clock, durability=settings.durability) as store,
        anyio.create_task_group() as tasks,  # outside: containers end in good order, last
        anyio.create_task_group() as services,
    ):
        tenants = Tenants(max_queued=settings.max_queued)
        objects.volumes.owner = backend.file_owner
        engine = Engine(backend, tasks, clock, nodes, objects, tenants)
        engine.quotas = QuotaOps(engine.ops, store.quotas, tenants, engine.quotas_changed)
        await engine.quotas.follow()
        engine.durable = Durable(engine, store, home, settings.retention)
        engine.hosting = Hosting(engine)
        engine.timetable = Timetable(engine)
        AdminOps(engine)
        build_ops.add_to(engine)
        engine.loop.set_exception_handler(engine.crash)
        for service in (
            engine.surface_crash,
            engine.planner.run,
            objects.volumes.commit_in_background,
            store.watch,
            engine.durable.run,
            engine.hosting.run,
            engine.timetable.run,
            partial(_check_often, check),
            partial(_sample_often, engine),
        ):
            services.start_soon(engine.serve, service)
        try:
            yield engine
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_WITHIN):
                await engine.aclose()
            services.cancel_scope.cancel()


async def _sample_often(engine: Engine) -> None:
    while True:
        engine.sample()
        await anyio.sleep(SLICE)


async def _check_often(check: Callable[[], None]) -> None:
    while True:
        await anyio.sleep(CHECK_INTERVAL)
        check()
