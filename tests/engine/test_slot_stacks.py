"""Stacks that a container sends: read only while somebody waits for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from minimodal.engine.calls import LiveCall
from minimodal.engine.slot import Slot
from minimodal.engine.stacks import Stacks
from minimodal.types import EMPTY
from minimodal.wire import Frame, Kind

THREADS = [{"name": "MainThread", "frames": [["a.py", 3, "f", "x = 1"]]}]


@pytest.mark.anyio
async def test_a_stack_that_nobody_asked_for_is_not_read() -> None:
    asked = anyio.Event()
    slot = SimpleNamespace(ask_for_stack=lambda live: asked.set())
    live = cast(LiveCall, SimpleNamespace(slot=slot, seq=1, call=SimpleNamespace(id="fc-1")))
    stacks = Stacks(cast(Slot, slot))
    stacks.answer(Frame(Kind.STACK, 1, "no JSON", EMPTY), None)  # and no error either
    found: list[dict[str, Any]] = []

    async def ask() -> None:
        found.extend(await stacks.of(live))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await asked.wait()
        stacks.answer(Frame(Kind.STACK, 1, json.dumps(THREADS), EMPTY), None)
    assert found == THREADS
    stacks.answer(Frame(Kind.STACK, 1, "no JSON", EMPTY), None)
