"""`Lease`: a free slot that a caller's thread uses by itself, without the loop in between.

On its way a warm call changes the thread or process four times (caller, loop, executor, loop, caller),
and that costs more than all the work. So a thread that makes one small call after the other may write
the CALL and read its answer itself: two changes. Ray's workers are leased to callers for the same
reason (Moritz et al.: "Ownership", NSDI 2021).

The loop stays the owner. It lends a slot only where nobody else waits for the pool, hears of each
call within `TICK`, and can take the slot back at any moment: then the call that is on its way goes on
as any other. The same happens with whatever is no quick, plain answer: output, an error, a nested
call, an end of the executor, an answer after `QUICK`.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from minimodal.errors import NotRunningError
from minimodal.types import Call, CallState, Outcome
from minimodal.wire import Kind, encode, plain_result

from .calls import LiveCall
from .slot import call_meta

if TYPE_CHECKING:
    from collections.abc import Iterator

    from minimodal.protocols import Done

    from .engine import Engine
    from .pool import Pool
    from .slot import Slot

QUICK = 0.001  # seconds that a caller's thread waits for an answer itself
TICK = 0.001  # seconds between two looks whether a lease is still used
GAP = 0.001  # seconds between the end of a call and the next, for a lease to be worth it
PAUSE = 1.0  # seconds without a lease after one that had to be taken back in the middle of a call
LARGEST = 32 * 1024  # bytes of arguments: a frame of that size fits any socket's empty buffer
CALLS = 1 << 20  # numbers that are set aside for the calls of one lease

Post = Callable[[Callable[[], None]], None]


class _Taken:
    """A call that a caller's thread has given to the slot, and how far it has got with it."""

    __slots__ = ("at", "call", "done", "seq", "torn", "unread", "unwritten")

    def __init__(self, call: Call, done: Done, seq: int, at: float, frame: bytes) -> None:
        self.call = call
        self.done = done
        self.seq = seq
        self.at = at
        self.unwritten = frame
        self.unread = b""
        self.torn = True  # nobody knows what was written, or read, when it was interrupted


class Lease:
    """Made by `Leases`. `run` is for callers' threads; all else runs on the loop."""

    def __init__(self, leases: Leases, pool: Pool, slot: Slot, fd: int, user: str) -> None:
        self._leases = leases
        self._pool = pool
        self._slot = slot
        self._fd = fd
        self._user = user
        self._readable = select.poll()
        self._readable.register(fd, select.POLLIN)
        self._seqs = _set_aside(pool.engine)
        self._lock = threading.Lock()
        # Under the lock, as the descriptor is:
        self._open = True
        self._taken: _Taken | None = None
        self._seen = 0  # calls at the last tick
        self._count = 0
        self._timer = pool.engine.loop.call_later(TICK, self._tick)

    def run(self, call: Call, done: Done) -> bool:
        """Give the slot a call, and wait for its answer as long as that is quick.

        False: nothing was done. Else `done` has been called, or will be by the loop.
        """
        if call.user != self._user or call.payload.buffers or len(call.payload.data) > LARGEST:
            return False
        try:
            taken = self._give(call, done)
            if taken is None:
                return False
            outcome = self._answer(taken) if self._readable.poll(QUICK * 1000) else None
        except BaseException:  # Ctrl-C: who called run cancels, and the loop knows how
            with suppress(NotRunningError):
                self._leases.post(self.reclaim)
            raise
        if outcome is None:
            self._leases.post(self.reclaim)
        else:
            done(outcome)
        return True

    def _give(self, call: Call, done: Done) -> _Taken | None:
        with self._lock:
            seq = next(self._seqs, None)
            if not self._open or self._taken is not None or seq is None:
                return None
            frame = bytes(encode(Kind.CALL, seq, call_meta(call), call.payload)[0])
            at = self._pool.engine.clock.monotonic()
            taken = self._taken = _Taken(call, done, seq, at, frame)
            try:
                taken.unwritten = frame[os.write(self._fd, frame) :]
            except OSError:
                pass  # it is full, or the executor has gone: the loop sees which
            taken.torn = False
            return taken

    def _answer(self, taken: _Taken) -> Outcome | None:
        """The outcome, if what has come is a plain result and nothing else."""
        with self._lock:
            if self._taken is not taken:
                return None  # the loop reads it
            taken.torn = True
            try:
                taken.unread = os.read(self._fd, LARGEST)
            except OSError:
                pass
            taken.torn = False
            result = plain_result(taken.unread, taken.seq)
            if result is None:
                return None
            self._taken = None
            self._count += 1
        seconds, value = result
        outcome = Outcome(CallState.OK, value, None, 1)
        self._leases.note(partial(self._record, taken, outcome, seconds))
        return outcome

    # --- on the loop ---------------------------------------------------------------------------------

    def _record(self, taken: _Taken, outcome: Outcome, seconds: float) -> None:
        """What `Engine.settle` would have noted."""
        live = LiveCall(taken.call, self._pool, taken.at)
        live.container = self._slot.session.id
        engine = self._pool.engine
        engine.traces.began(live)
        engine.remember(live, outcome, taken.at + seconds)
        self._pool.took(seconds)

    def _tick(self) -> None:
        self._leases.catch_up()
        if not self._open:
            return
        if self._count == self._seen:
            self.reclaim()
            return
        self._seen = self._count
        loop = self._pool.engine.loop
        self._slot.session.became_idle(loop.time())
        self._timer = loop.call_later(TICK, self._tick)

    def reclaim(self) -> None:
        """The loop uses the slot again. A call that is on its way becomes one like any other."""
        with self._lock:
            if not self._open:
                return
            self._open = False
            taken, self._taken = self._taken, None
        self._timer.cancel()
        self._leases.ended(self._pool)
        if taken is None:
            self._slot.end_lease()
            return
        live = self._pool.engine.admit(taken.call, self._pool)
        live.queued_at = taken.at
        live.then(taken.done)
        self._pool.began(live)
        self._slot.end_lease(live, taken.seq, taken.unwritten, taken.unread)
        if taken.torn:
            self._slot.session.kill_slot(self._slot)


class Leases:
    """The leases of one client, by the key of their function. `note` is `post` without haste."""

    def __init__(
        self, engine: Engine, post: Post, note: Post, catch_up: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._leases: dict[str, Lease] = {}
        self.post = post
        self.note = note
        self.catch_up = catch_up

    def run(self, call: Call, done: Done) -> bool:
        """As `Lease.run`, for any thread."""
        lease = self._leases.get(call.function)
        return lease is not None and lease.run(call, done)

    def begin(self, call: Call, done: Done) -> None:
        """Run a call whose caller waits for it, and lend a slot for the next if that comes at once."""
        asked = self._engine.clock.monotonic()

        def answered(outcome: Outcome) -> None:
            if outcome.state is CallState.OK:
                self._lend(call, asked)  # before the caller can call again
            done(outcome)

        self._engine.run(call, answered)

    def _lend(self, call: Call, asked: float) -> None:
        pool = self._engine.pools.get(call.function)
        if pool is None:
            return
        last, pool.answered_at = pool.answered_at, self._engine.clock.monotonic()
        if asked - last > GAP or not pool.may_lend(QUICK / 2):
            return
        for session in reversed(pool.sessions):
            for slot in session.slots:
                fd = None if session.stopping else slot.lend()
                if fd is not None:
                    pool.lease = self._leases[pool.key] = Lease(self, pool, slot, fd, call.user)
                    return

    def ended(self, pool: Pool) -> None:
        pool.lease = None
        del self._leases[pool.key]


def _set_aside(engine: Engine) -> Iterator[int]:
    """Numbers of calls that the loop will give to no other."""
    first = engine.seq + 1
    engine.seq += CALLS
    return iter(range(first, first + CALLS))
