"""`Slot`: one executor, the calls that it has, and their deadlines.

A serial executor works on the first call in `inflight`; the others are prefetched, so their attempt
has not begun. A concurrent one works on all of them.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from minimodal.errors import ProtocolError
from minimodal.types import Call, CallState, ExitReason, Failure, Payload
from minimodal.wire import Frame, Kind

from .calls import LiveCall
from .deadline import Deadline
from .stacks import Stacks
from .terminal import LOOK_AGAIN

if TYPE_CHECKING:
    from .peer import Peer
    from .session import Session

GRACE = 1.0  # seconds that user code has to react to an interrupt before its executor is killed
TAKE_BATCH = 256
CUT_AFTER = 0.2  # seconds after which an executor without a connection is ended
CUT = ExitReason(
    detail="its connection to the engine was closed. Does the code close, or write over, file "
    "descriptors that it has not opened (os.closerange, os.dup2)?"
)
RECALL_AFTER = 0.02  # seconds that a call may run before those behind it are given back


class Slot:
    """Sends CALLs, takes the answers. One per executor; a re-forked executor gets a new one."""

    def __init__(self, session: Session, index: int) -> None:
        self.session = session
        self.index = index
        self.ready = False
        self.was_ready = False
        self.reserved = 0  # calls that come when their attempt is on record
        self.inflight: dict[int, LiveCall] = {}  # by seq, in order of dispatch
        self._peer: Peer | None = None
        self._timeout: Deadline | None = None
        self._kills: dict[int, asyncio.TimerHandle] = {}  # when an interrupt is not heeded
        self._ending: dict[int, CallState] = {}  # interrupted on purpose, and why
        self._recalled: set[int] = set()
        spec = session.pool.spec
        self._batched = spec.batching is not None
        self._serial = spec.max_inputs == 1 and not self._batched
        self._batches: dict[int, set[int]] = {}  # by seq: the members of its batch that still run
        self._running_batches = 0
        self.retiring = False
        self._doomed = False  # its process is being killed
        self._recall: asyncio.TimerHandle | None = None
        # Runs while its connection is gone and its end has not been reported.
        self._cut: asyncio.TimerHandle | None = None
        self._was_cut = False
        self.stacks = Stacks(self)

    def connect(self, peer: Peer) -> None:
        self._peer = peer
        peer.on_frame = self._on_frame
        peer.on_lost = self._on_lost

    # --- giving work ---------------------------------------------------------------------------------

    @property
    def load(self) -> int:
        """Inputs that it has, or batches where it works on those."""
        has = self._running_batches if self._batched else len(self.inflight)
        return has + self.reserved

    @property
    def running_since(self) -> float | None:
        """When the oldest of its calls that work began; they are in that order. O(1) unless some wait."""
        begun = (live.started_at for live in self.inflight.values() if not live.waiting)
        return next(begun, None)

    @property
    def accepting(self) -> bool:
        """Whether new calls may be given to it at all, if it has room."""
        if not self.ready or self._doomed or self.stalled:
            return False
        return not self._ending or all(map(self._left, self._ending))

    @property
    def stalled(self) -> bool:
        """User code blocks its loop until a nested call is done: nothing new begins meanwhile."""
        pool = self.session.pool
        return pool.waiting > 0 and any(live.stalling for live in self.inflight.values())

    def give_batch(self, batch: list[LiveCall]) -> None:
        """Send calls that are one call of the user's function."""
        seq = self.session.pool.engine.seq
        members = set(range(seq + 1, seq + 1 + len(batch)))
        self._running_batches += 1
        self._batches.update(dict.fromkeys(members, members))
        for live in batch:
            self.give(live, len(batch))

    def _left_batch(self, seq: int) -> None:
        members = self._batches.pop(seq, None)
        if members is not None:
            members.discard(seq)
            self._running_batches -= not members

    def give(self, live: LiveCall, batch: int = 1) -> None:
        """Send a call; the executor may be busy with an earlier one. `batch`: members of its batch."""
        assert self._peer is not None
        call = live.call
        engine = self.session.pool.engine
        engine.seq += 1
        self._has(live, engine.seq)
        self._peer.send(Kind.CALL, live.seq, call_meta(call, batch), call.payload)
        if live.inputs is not None:
            live.inputs.connect(self, live.seq)
        if self._serial and len(self.inflight) > 1 and self._recall is None:
            self._recall = engine.loop.call_later(RECALL_AFTER, self._recall_if_slow, self._head())

    def _has(self, live: LiveCall, seq: int) -> None:
        session = self.session
        live.slot, live.seq = self, seq
        live.state = CallState.RUNNING
        live.container = session.id
        if session.ready_at > live.queued_at:  # it waited for this container to start
            live.cold = session.ready_at - max(live.queued_at, session.started_at)
        self.inflight[seq] = live
        if not self._serial or len(self.inflight) == 1:
            self._begin(live)

    def lend(self) -> int | None:
        """The descriptor by which a caller's thread may use it until `end_lease`; None: not now."""
        if self._peer is None or self.load or not self.accepting:
            return None
        return self._peer.lend()

    def end_lease(
        self,
        live: LiveCall | None = None,
        seq: int = 0,
        unwritten: bytes = b"",
        unread: bytes = b"",
    ) -> None:
        """It is the loop's again. `live`: what the caller's thread has given it, as `seq`."""
        if live is not None:
            self._has(live, seq)
        if self._peer is not None:
            self._peer.end_lease(unwritten, unread)

    def _begin(self, live: LiveCall) -> None:
        """The attempt starts now, as far as it can be told from here."""
        engine = self.session.pool.engine
        live.started_at = engine.clock.monotonic()
        if self._timeout is None:
            wait = live.pool.spec.timeout
            self._timeout = Deadline(engine.loop, wait, self._look_for_timeouts)

    def _look_for_timeouts(self) -> None:
        """One timer for each slot, moved on when it fires: a timer for each call costs 3 µs."""
        self._timeout = None
        engine, timeout = self.session.pool.engine, self.session.pool.spec.timeout
        now = engine.clock.monotonic()
        held = engine.terminal.held_since
        begun = [live for live in self.inflight.values() if self._begun(live)]
        left = {live: live.started_at + held(live.started_at) + timeout - now for live in begun}
        for live in begun:
            if left[live] <= 0:
                self._end(live, CallState.TIMEOUT)
        running = [left[live] for live in begun if live.seq not in self._ending]
        if running:
            wait = max(min(running), LOOK_AGAIN if engine.terminal.is_held else 0.001)
            self._timeout = Deadline(engine.loop, wait, self._look_for_timeouts)

    def _begun(self, live: LiveCall) -> bool:
        return not self._serial or self._head() is live

    def cancel(self, live: LiveCall) -> None:
        """Stop a call that was given to this slot. Its outcome is already decided."""
        self._end(live, CallState.CANCELLED)

    def _end(self, live: LiveCall, why: CallState) -> None:
        if live.seq in self._ending or self._peer is None:
            return
        self._ending[live.seq] = why
        self._peer.send(Kind.CANCEL, live.seq)
        if any(seq not in self._ending for seq in self._batches.get(live.seq, ())):
            return  # the batch goes on for its other members
        if self._begun(live):
            self._interrupt(live)

    def _interrupt(self, live: LiveCall) -> None:
        self.session.interrupt(self.index, live.seq)
        loop = self.session.pool.engine.loop
        self._kills[live.seq] = loop.call_later(GRACE, self._kill_for, live)

    def _kill_for(self, live: LiveCall) -> None:
        """It did not react. But a client that left must not cost other clients their answers."""
        if self._left(live.seq) and len(self.inflight) > 1:
            loop = self.session.pool.engine.loop
            self._kills[live.seq] = loop.call_later(GRACE, self._kill_for, live)
        else:
            self._doomed = True
            self.session.kill_slot(self)

    def _left(self, seq: int) -> bool:
        """It is a web request whose client has gone."""
        return self.inflight[seq].call.web and self._ending[seq] is CallState.CANCELLED

    # --- prefetched calls ----------------------------------------------------------------------------

    @property
    def blocked(self) -> bool:
        """All that it works on waits for nested calls: another executor may use the time."""
        inflight = self.inflight.values()
        return self.stalled or (bool(inflight) and all(live.waiting for live in inflight))

    def open_to_prefetch(self, now: float) -> bool:
        head = self._head()
        return head is None or (not head.waiting and now - head.started_at < RECALL_AFTER)

    def on_waiting(self) -> None:
        """Its user code waits for a nested call: what was sent ahead must not wait behind it."""
        if len(self.inflight) > 1 and (self._serial or self.stalled):
            self._recall_rest()
        self.session.pool.dispatch_later()

    def _recall_if_slow(self, head: LiveCall | None) -> None:
        self._recall = None
        if len(self.inflight) > 1:
            if self._head() is head:
                self._recall_rest()
            else:
                loop = self.session.pool.engine.loop
                self._recall = loop.call_later(RECALL_AFTER, self._recall_if_slow, self._head())

    def _recall_rest(self) -> None:
        self.session.recall(self.index, self.session.pool.engine.seq + 1)

    def recalled(self, begun: int, below: int) -> None:
        """The executor will not begin what lies between the two: it goes back to the queue."""
        for live in [live for seq, live in self.inflight.items() if begun < seq < below]:
            self._give_back(live)

    def _give_back(self, live: LiveCall) -> None:
        del self.inflight[live.seq]
        self._left_batch(live.seq)
        kill = self._kills.pop(live.seq, None)
        if kill is not None:
            kill.cancel()
        self._recalled.add(live.seq)
        live.slot = None
        live.pool.given_back(live, self._ending.pop(live.seq, None))

    def retire(self) -> None:
        """One executor too many: the calls that lent it their slot have ended."""
        self.retiring = True
        self.ready = False
        self.stop()

    def credit(self, live: LiveCall, items: int) -> None:
        """The consumer took `items`: the generator may yield as many more."""
        if self._peer is not None:
            self._peer.send(Kind.CREDIT, live.seq, str(items))

    def input(self, seq: int, data: Payload) -> None:
        """One more part of what a running call reads."""
        if self._peer is not None and seq in self.inflight:
            self._peer.send(Kind.INPUT, seq, "", data)

    def ask_for_stack(self, live: LiveCall) -> None:
        """Both who may know: a loop that is free, and the supervisor."""
        if self._peer is not None:
            self._peer.send(Kind.STACK, live.seq)
        self.session.ask_for_stack(self.index)

    def stop(self) -> None:
        """Ask the executor to run @exit and leave."""
        if self._peer is not None:
            self._peer.send(Kind.STOP)

    # --- answers -------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULT:
                self._answered(frame, None)
            case Kind.ERROR:
                self._answered(frame, self.session.mask.failure(failure_of(frame)))
            case Kind.YIELD:
                live = self.inflight.get(frame.seq)
                if live is None or live.stream is None:
                    raise ProtocolError("an item for a call that it does not have")
                if frame.seq not in self._ending:
                    live.stream.put(frame.payload)
            case Kind.TAKEN:
                live = self.inflight.get(frame.seq)
                if live is None or live.inputs is None:
                    raise ProtocolError("it took input of a call that it does not have")
                live.inputs.taken(int(frame.meta))
            case Kind.RETURNED:
                if frame.seq in self._recalled:
                    self._recalled.discard(frame.seq)
                elif frame.seq in self.inflight:
                    self._give_back(self.inflight[frame.seq])
                    self._recalled.discard(frame.seq)
            case Kind.LOG:
                self.session.on_log(frame)
            case Kind.STACK:
                self.stacks.answer(frame, frame.seq)
            case Kind.READY:
                self.session.slot_ready(self)
            case Kind.FAILED:
                self.session.start_failed(failure_of(frame), again=True)
            case _:
                raise ProtocolError(f"an executor does not send {frame.kind.name}")

    def _answered(self, frame: Frame, failure: Failure | None) -> None:
        live = self.inflight.pop(frame.seq, None)
        if live is None:
            raise ProtocolError("an answer to a call that it does not have")
        why = self._ending.pop(frame.seq, None) if self._ending else None
        if why is not None:
            kill = self._kills.pop(frame.seq, None)
            if kill is not None:
                kill.cancel()
        if self._batched:
            self._left_batch(frame.seq)
        live.slot = None
        if self._serial and self.inflight:
            self._next_head()
        seconds = float(frame.meta) if failure is None else 0.0
        live.pool.answered(live, self, frame.payload, seconds, failure, why)

    def _next_head(self) -> None:
        head = self._head()
        assert head is not None
        if head.seq in self._ending:
            self._interrupt(head)
        else:
            self._begin(head)

    def _head(self) -> LiveCall | None:
        return next(iter(self.inflight.values()), None)

    # --- the end -------------------------------------------------------------------------------------

    def _on_lost(self, reason: str) -> None:
        self._peer = None
        self.ready = False  # EXITED comes by another connection, later
        if reason.startswith("it broke"):
            self.session.condemn(reason)
        else:  # of one that has ended the supervisor tells within milliseconds
            loop = self.session.pool.engine.loop
            self._cut = loop.call_later(CUT_AFTER, self._on_cut)

    def _on_cut(self) -> None:
        """It lives and cannot be reached: its user code closed our descriptor, or covers it."""
        self._was_cut = True
        self.session.kill_slot(self)

    def lost(self, reason: ExitReason) -> None:
        """The executor is gone. Its calls go back to the pool; only begun ones count a loss."""
        self.session.pool.reclaim()
        self.ready = False
        if self._was_cut:
            reason = CUT
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.on_lost = lambda _: None
            peer.close()
        for timer in (*self._kills.values(), self._recall, self._timeout, self._cut):
            if timer is not None:
                timer.cancel()
        self._kills.clear()
        inflight, self.inflight = list(self.inflight.values()), {}
        on_purpose = bool(self._ending)  # to end one input its executor was killed
        for position, live in enumerate(inflight):
            live.slot = None
            why = self._ending.get(live.seq)
            begun = not self._serial or position == 0
            live.pool.lost(live, reason, begun and (why is not None or not on_purpose), why)
        self._ending.clear()
        self._batches.clear()
        self._running_batches = 0


def call_meta(call: Call, batch: int = 1) -> str:
    """The words of a CALL frame. `batch`: members of its batch."""
    stream = "w" if call.web else "1" if call.stream else ""
    return f"{call.id}\0{call.method}\0{call.depth}\0{stream}\0{batch}"


def failure_of(frame: Frame) -> Failure:
    """The words and the pickle of an ERROR or FAILED frame."""
    words = json.loads(frame.meta)
    kind, message, text = (str(words[k]) for k in ("type", "message", "traceback"))
    carried: Payload | None = frame.payload if frame.payload.data else None
    return Failure(kind, message, text, carried)
