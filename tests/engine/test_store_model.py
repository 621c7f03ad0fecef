"""The store against a model in memory, under random calls, crashes, cancels, retries, takeovers.

A crash is a copy of the files as they are, opened by a new engine; the old engine's end is not asked.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
)

from minimodal.engine.store import Store, open_store
from minimodal.home import open_home
from minimodal.types import Call, CallState, Failure, Outcome, Payload

T = TypeVar("T")

BOOM = Failure("ValueError", "boom")


@dataclass
class Entry:
    """What the model knows of one call."""

    payload: Payload
    state: CallState = CallState.QUEUED
    attempt: int = 0
    errors: int = 0
    losses: int = 0
    outcome: Outcome | None = None
    dead: bool = False

    def start(self, attempt: int) -> bool:
        won = self.state is CallState.QUEUED and attempt == self.attempt + 1
        if won:
            self.state, self.attempt = CallState.RUNNING, attempt
        return won

    def fail(self, attempt: int, lost: bool) -> bool:
        won = self.state is CallState.RUNNING and attempt == self.attempt
        if won:
            self.state = CallState.QUEUED
            self.losses, self.errors = self.losses + lost, self.errors + (not lost)
        return won

    def finish(self, attempt: int | None, outcome: Outcome) -> bool:
        won = not self.state.finished and attempt in (None, self.attempt)
        if won:
            self.state = outcome.state
            self.outcome = Outcome(
                outcome.state, outcome.value, outcome.failure, attempts=self.attempt
            )
            self.dead = outcome.state is CallState.ERROR
        return won

    def crash(self) -> None:
        if self.state is CallState.RUNNING:
            self.state, self.losses = CallState.QUEUED, self.losses + 1


class StoreMachine(RuleBasedStateMachine):
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="m-", dir="/tmp"))
        self.loop = asyncio.new_event_loop()
        self.model: dict[str, Entry] = {}
        self.engines = 0

    def do(self, action: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(action)

    @initialize()
    def first(self) -> None:
        self.directory = self.root / "0"
        self._open()

    def _open(self) -> None:
        self.engines += 1
        self.stack = AsyncExitStack()
        opening = open_store(open_home(self.directory), f"en-{self.engines}")
        self.store: Store = self.do(self.stack.enter_async_context(opening))

    @rule(target=ids, count=st.integers(1, 3), size=st.sampled_from([0, 5, 300_000]))
    def submit(self, count: int, size: int) -> Any:
        ids = [f"fc-{len(self.model) + n}" for n in range(count)]
        payload = Payload(os.urandom(size))
        self.model |= {id: Entry(payload) for id in ids}
        calls = [Call(id, "app/f", payload, durable=True) for id in ids]
        assert self.do(self.store.accept(calls)) == frozenset()
        return multiple(*ids)

    @rule(id=ids)
    def submit_again(self, id: str) -> None:
        call = Call(id, "app/f", Payload(b"other"), durable=True)
        assert self.do(self.store.accept([call])) == {id}

    @rule(id=ids, late=st.integers(-1, 1))
    def start(self, id: str, late: int) -> None:
        attempt = self.model[id].attempt + 1 + late
        won = self.do(self.store.attempt_started(id, attempt))
        assert won == self.model[id].start(attempt)

    @rule(id=ids, lost=st.booleans(), late=st.sampled_from([0, 0, 1]))
    def fail(self, id: str, lost: bool, late: int) -> None:
        attempt = self.model[id].attempt - late
        won = self.do(self.store.attempt_failed(id, attempt, BOOM, lost=lost))
        assert won == self.model[id].fail(attempt, lost)

    @rule(
        id=ids,
        ok=st.booleans(),
        late=st.sampled_from([0, 0, 1]),
        size=st.sampled_from([1, 300_000]),
    )
    def finish(self, id: str, ok: bool, late: int, size: int) -> None:
        value = Payload(os.urandom(size))
        failed = Outcome(CallState.ERROR, failure=BOOM)
        outcome = Outcome(CallState.OK, value) if ok else failed
        attempt = self.model[id].attempt - late
        won = self.do(self.store.record(id, attempt, outcome))
        assert won == self.model[id].finish(attempt, outcome)

    @rule(id=ids)
    def cancel(self, id: str) -> None:
        outcome = Outcome(CallState.CANCELLED)
        won = self.do(self.store.record(id, None, outcome))
        assert won == self.model[id].finish(None, outcome)

    @rule(target=ids, id=ids)
    def retry(self, id: str) -> Any:
        again = self.do(self.store.dead_letters.retry(ids=[id]))
        assert len(again) == self.model[id].dead
        for stored in again:
            assert stored.call.payload == self.model[id].payload
            self.model[id].dead = False
            self.model[stored.call.id] = Entry(stored.call.payload)
        return multiple(*(stored.call.id for stored in again))

    @rule()
    def purge(self) -> None:
        dead = [entry for entry in self.model.values() if entry.dead]
        assert self.do(self.store.dead_letters.purge()) == len(dead)
        for entry in dead:
            entry.dead = False

    @rule()
    def collect(self) -> None:
        self.do(self.store.history.collect_blobs(lambda engine: True, grace=-60))

    @rule(limit=st.sampled_from([1, 500]), crash=st.booleans())
    def restart(self, limit: int, crash: bool) -> None:
        if crash:  # by another process: closing a file here drops the locks that SQLite has on it
            self.directory = self.root / f"{self.engines}"
            subprocess.run(
                ["cp", "-r", self.store.database.path.parents[1], self.directory], check=True
            )
        self.do(self.stack.aclose())
        self._open()
        taken = []
        while found := self.do(self.store.recovery.take_over(lambda engine: False, limit=limit)):
            taken += found
        unfinished = {id: e for id, e in self.model.items() if not e.state.finished}
        for entry in unfinished.values():
            entry.crash()
        assert len(taken) == len(unfinished)
        for stored in taken:
            entry = unfinished[stored.call.id]
            counts = (entry.payload, entry.attempt, entry.errors, entry.losses)
            assert (stored.call.payload, stored.attempt, stored.errors, stored.losses) == counts

    @invariant()
    def agrees(self) -> None:
        for id, entry in self.model.items():
            assert self.do(self.store.outcome(id)) == entry.outcome
            if entry.dead:
                assert self.do(self.store.dead_letters.show(id)).input == entry.payload
        infos = {info.id: info for info in self.do(self.store.history.find(limit=10_000))}
        assert {id: (i.state, i.attempts, i.dead) for id, i in infos.items()} == {
            id: (e.state, e.attempt, e.dead) for id, e in self.model.items()
        }

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.do(self.stack.aclose())
        self.do(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.root)


StoreMachine.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestStoreModel = StoreMachine.TestCase
