"""For tests of your own functions: a platform to run them on, and ways to break it on purpose.

The pytest plugin's fixtures are made of this; it works under any other test runner too. Faults are real
where they can be: containers and executors die by SIGKILL, under the call that they work on.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import context
from .clock import ManualClock
from .errors import InvalidError
from .face import block

if TYPE_CHECKING:
    from .callee import Callee
    from .clock import Clock
    from .engine.calls import LiveCall
    from .engine.engine import Engine
    from .engine.pool import Pool
    from .engine.slot import Slot
    from .host import Host

__all__ = [
    "ManualClock",
    "advance",
    "fail_next",
    "kill_container",
    "kill_executor",
    "running_platform",
]

T = TypeVar("T")
Fault = Callable[["LiveCall", "Slot"], None]

ANSWER_WITHIN = 10.0  # seconds that the engine's loop has; it is busy for milliseconds


@contextmanager
def running_platform(
    home: str | os.PathLike[str], backend: str = "embedded", *, clock: Clock | None = None
) -> Iterator[Host]:
    """A platform with its state under `home`, and nothing of the user's own settings.

    `clock`: another than the system's, such as `ManualClock()`.

    `backend`: "embedded" is the best that needs no daemon. Leaving the block ends all containers.
    """
    from .config import Config
    from .host import Host

    before = os.environ.get("MINIMODAL_HOME")
    os.environ["MINIMODAL_HOME"] = str(home)
    try:
        with Host(Config(backend=backend, home=Path(home), port=0), "test", clock=clock) as host:
            yield host
    finally:
        if before is None:
            del os.environ["MINIMODAL_HOME"]
        else:
            os.environ["MINIMODAL_HOME"] = before


def kill_container(function: Callee) -> None:
    """Kill the container in which a call of `function` runs, as the out-of-memory killer would.

    Where no call runs, the container that gets the next one dies with it. The call is then run again
    elsewhere, as after any loss of a container.
    """
    _strike(function, _kill_container)


def kill_executor(function: Callee) -> None:
    """Kill the process in which a call of `function` runs; its container goes on with a new one.

    Where no call runs, the process that gets the next one dies with it. The call is then run again.
    """
    _strike(function, _kill_executor)


def fail_next(function: Callee, error: BaseException | type[BaseException], times: int = 1) -> None:
    """Let the next `times` attempts of `function` raise `error` instead of running. Retries count them."""
    from .tracebacks import pack
    from .types import CallState

    failure = pack(error() if isinstance(error, type) else error)

    def begin(live: LiveCall, slot: Slot) -> None:
        # Later: who submitted the call waits for it only when it was accepted.
        live.pool.engine.loop.call_soon(fail, live)

    def fail(live: LiveCall) -> None:
        live.pool.left(live)
        live.pool._attempt_failed(live, CallState.ERROR, failure)
        live.pool.dispatch_later()

    def arm(engine: Engine, pool: Pool) -> None:
        for _ in range(times):
            _Faults.of(pool).add(begin)

    _at_pool(function, arm)


def advance(clock: ManualClock, seconds: float) -> None:
    """Let `seconds` pass on the engine's clock, and let the engine look what is due now."""
    clock.advance(seconds)
    if context.running_client() is not None:
        engine = _engine()
        _in_loop(engine, engine.planner.wake)


# --- reaching into the engine ---------------------------------------------------------------------


def _engine() -> Engine:
    from .engine.client import LoopClient
    from .engine.engine import Engine

    client = context.get_client()
    if not isinstance(client, LoopClient) or not isinstance(client._engine, Engine):
        raise InvalidError("faults can only be made in an engine of this process")
    return client._engine


def _in_loop(engine: Engine, work: Callable[[], T]) -> T:
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    engine.loop.call_soon_threadsafe(run)
    return done.result(ANSWER_WITHIN)


def _at_pool(function: Callee, work: Callable[[Engine, Pool], None]) -> None:
    engine = _engine()
    key = block(function._key(context.get_client()))
    _in_loop(engine, lambda: work(engine, engine.pool_of(key)))


def _strike(function: Callee, kill: Callable[[Slot], None]) -> None:
    def strike(engine: Engine, pool: Pool) -> None:
        slots = [slot for session in pool.sessions for slot in session.slots]
        busy = next((slot for slot in slots if slot.inflight), None)
        if busy is not None:
            kill(busy)
        else:
            _Faults.of(pool).add(lambda live, slot: _give_and_kill(live, slot, kill))

    _at_pool(function, strike)


def _give_and_kill(live: LiveCall, slot: Slot, kill: Callable[[Slot], None]) -> None:
    """The executor never hears of the call: a quick one would be done before it is killed."""
    peer, slot._peer = slot._peer, _Mute()  # type: ignore[assignment]  # for one frame
    try:
        slot.give(live)
    finally:
        slot._peer = peer
    kill(slot)


class _Mute:
    def send(self, *_: Any) -> None:
        """The frame is lost."""


def _kill_executor(slot: Slot) -> None:
    slot.session.kill_slot(slot)


def _kill_container(slot: Slot) -> None:
    container = slot.session.container
    if container is not None:
        slot.session.pool.engine.tasks.start_soon(container.kill)


class _Faults:
    """Stands before a pool's `give` until its faults are used up."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._give = pool.give
        self._waiting: deque[Fault] = deque()
        pool.give = self  # type: ignore[method-assign]  # a fault, made on purpose

    @classmethod
    def of(cls, pool: Pool) -> _Faults:
        found = pool.__dict__.get("give")
        return found if isinstance(found, cls) else cls(pool)

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def __call__(self, live: LiveCall, slot: Slot) -> None:
        if self._waiting:
            self._waiting.popleft()(live, slot)
        else:
            del self._pool.__dict__["give"]
            self._give(live, slot)
