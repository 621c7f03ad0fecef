"""Makes tests/engine/data/schema-N.db: run once when a schema version is released, then keep.

`python tests/engine/make_stored_database.py`: one call of each kind, a deployment, a schedule.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import anyio

from minimodal.clock import ManualClock
from minimodal.engine import schema
from minimodal.engine.store import open_store
from minimodal.home import Home, open_home
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

DATA = Path(__file__).with_name("data")
SPEC = FunctionSpec(
    "shop", "f", ByName("m", "f", "d" * 64), schedule=ScheduleSpec(cron="* * * * *")
)


async def fill(home: Home) -> None:
    async with open_store(home, "en-old", clock=ManualClock()) as store:
        for name in ("queued", "running", "ok", "error", "cancelled"):
            await store.accept([Call(name, "shop/f", Payload(name.encode()), durable=True)])
            if name != "queued":
                await store.attempt_started(name, 1)
        await store.record("ok", 1, Outcome(CallState.OK, Payload(b"value")))
        failure = Failure("ValueError", "boom", "Traceback", Payload(b"pickle"))
        await store.record("error", 1, Outcome(CallState.ERROR, failure=failure))
        await store.record("cancelled", 1, Outcome(CallState.CANCELLED))
        await store.recovery.put_spec(SPEC)
        await store.deployments.deploy("shop", [SPEC])
        await store.deployments.deploy("shop", [SPEC, SPEC])
        await store.schedules.tick("shop/f", 60.0, None)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        made = open_home(root)
        anyio.run(fill, made)
        target = DATA / f"schema-{len(schema.migrations())}.db"
        DATA.mkdir(exist_ok=True)
        shutil.copy(made.database, target)
