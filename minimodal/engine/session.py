"""`Session`: one container from its start to its end, and the connections of its agent."""

from __future__ import annotations

import json
import logging
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from minimodal.errors import BuildError, Error, ProtocolError
from minimodal.tracebacks import SOURCES_DIR
from minimodal.types import ContainerSpec, ExitReason, Failure, Mount, new_id
from minimodal.wire import Frame, Kind

from .deadline import Deadline
from .masking import NOTHING, Mask
from .peer import Peer
from .serving import Serving
from .slot import CUT, Slot, failure_of
from .start import start_frame
from .terminal import LOOK_AGAIN
from .usage import Usage

if TYPE_CHECKING:
    from minimodal.protocols import Container
    from minimodal.types import ImageRef

    from .calls import FunctionLabel
    from .pool import Pool

log = logging.getLogger("minimodal.engine")

HEARTBEAT = 2.5  # seconds between pings
HEARTBEATS_MISSED = 4
EXIT_GRACE = 30.0  # seconds that @exit has
STOP_GRACE = 5.0  # seconds from a kill to its news
MAX_SLOTS = 256  # executors of one container, with those that nested calls borrowed


class Session:
    """Owned by its pool; `run` is its one task."""

    def __init__(self, pool: Pool, image: ImageRef, node: str) -> None:
        self.pool = pool
        self.id = new_id("ct")
        self.image = image
        self.node = node
        self.ticket = (0, 0)  # of the pool's breakers
        self.mute = False  # it runs, and its agent has not said hello
        self.slots: list[Slot] = []
        self.ready = False
        self._was_ready = False
        self.stopping = False
        self.started_at = pool.engine.loop.time()
        self.ready_at = 0.0  # loop time; 0: not yet
        self.idle_since = self.started_at
        self._supervisor: Peer | None = None
        self.container: Container | None = None
        self.gone = anyio.Event()  # it will not be used any more
        self.usage = Usage()
        self._oom_kills = 0  # that have been told
        self._ended = anyio.Event()
        self._stop = anyio.Event()
        self._condemned = ""
        self._unanswered_pings = 0
        self.secrets: dict[str, str] = {}  # variables
        self.mask: Mask = NOTHING
        self._startup = Deadline(pool.engine.loop, self._startup_timeout, self._start_hung)

    def __repr__(self) -> str:
        return f"<Session {self.id} {'ready' if self.ready else 'starting'}>"

    @property
    def _startup_timeout(self) -> float:
        return self.pool.spec.startup_timeout or self.pool.spec.timeout

    @property
    def label(self) -> FunctionLabel:
        return self.pool.label

    @property
    def busy(self) -> bool:
        return any(slot.load for slot in self.slots)

    async def run(self) -> None:
        """Start the container, wait until it has ended or is to stop, and report the end once."""
        reason = ExitReason(detail="it did not start")
        engine = self.pool.engine
        engine.events.publish("container.starting", self.pool.name, container=self.id)
        try:
            spec = self.pool.spec
            async with engine.objects.given(self.id, spec.secrets, spec.volumes) as given:
                self._hide(given.variables)
                launched = engine.backend.launch(self._spec(given.mounts), self._accept)
                async with launched as container:
                    reason = await self._attend(container)
            if not self._was_ready and not self._stop.is_set():
                said = f": {reason.detail}" if reason.detail else ""
                message = f"the container of {self.pool.name} ended: {reason}{said}"
                self.start_failed(Failure("LaunchError", message), again=_was_killed(reason))
        except BuildError as error:  # it was removed behind our back: the next start builds it
            engine.builds.forget(self.pool)
            self.start_failed(Failure(type(error).__name__, str(error)), again=True)
        except Error as error:
            self.start_failed(Failure(type(error).__name__, str(error)))
        except OSError as error:  # no descriptor, process or memory is free just now
            words = f"a container of {self.pool.name} cannot be started now: {error}"
            self.start_failed(Failure("LaunchError", words), again=True)
        finally:
            self._startup.cancel()
            self._close(reason)

    def _hide(self, variables: dict[str, str]) -> None:
        """What its START frame says and nobody may read in its output."""
        self.secrets = variables
        self.mask = Mask(variables.values())
        self.pool.engine.logs.hide(self.id, self.mask)

    def _spec(self, volumes: tuple[Mount, ...]) -> ContainerSpec:
        spec = self.pool.spec
        sources = [spec.target.sources] if spec.target.sources else []
        return ContainerSpec(
            id=self.id,
            label=self.pool.name,
            image=self.image,
            resources=spec.resources,
            env=dict(self.image.env),
            mounts=(*(Mount("sources", at, SOURCES_DIR) for at in sources), *volumes),
            block_network=spec.block_network,
            runtime=spec.runtime,
        )

    async def _attend(self, container: Container) -> ExitReason:
        reason = ExitReason()
        self.container = container
        self.mute = True
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                nonlocal reason
                reason = await container.wait()
                self._ended.set()

            tasks.start_soon(watch)
            tasks.start_soon(self._heartbeat)
            await self._until_stop()
            if self._was_ready and not self._ended.is_set() and not self._condemned:
                with anyio.move_on_after(EXIT_GRACE):
                    self._ask_to_stop()
                    await self._ended.wait()
            if not self._ended.is_set():
                await container.kill()
                with anyio.move_on_after(STOP_GRACE):
                    await self._ended.wait()
            tasks.cancel_scope.cancel()
        return ExitReason(detail=self._condemned) if self._condemned else reason

    async def _until_stop(self) -> None:
        async with anyio.create_task_group() as tasks:
            for event in (self._stop, self._ended):
                tasks.start_soon(_cancel_after, event, tasks.cancel_scope)

    async def _heartbeat(self) -> None:
        """A container that is frozen answers nothing; user code cannot stop the supervisor's answer."""
        while True:
            await anyio.sleep(HEARTBEAT)
            if self._supervisor is None:
                continue
            if self._unanswered_pings >= HEARTBEATS_MISSED:
                self.condemn("it did not answer for 10 s")
                return
            self._unanswered_pings += 1
            self._supervisor.send(Kind.PING)

    # --- connections ---------------------------------------------------------------------------------

    def _accept(self) -> Peer:
        return Peer(self._welcome, self.pool.engine.cork)

    def _welcome(self, peer: Peer, hello: dict[str, Any]) -> None:
        match hello["role"]:
            case "supervisor" if self._supervisor is None:
                self._supervisor = peer
                self.mute = False
                self.pool.engine.backend.note_python(self.image, str(hello["python"]))
                peer.on_frame = self._on_frame
                peer.on_lost = self._on_supervisor_lost
                peer.send(Kind.START, 0, *start_frame(self))
                self._fork()
            case "executor":
                slot = self._slot(int(hello["slot"]))
                if slot is None or slot.ready:
                    raise ProtocolError("an executor for a slot that waits for none")
                slot.connect(peer)
            case "client":
                Serving(self.pool.engine, peer, self)
            case role:
                raise ProtocolError(f"unknown role {role!r}")

    def _slot(self, index: int) -> Slot | None:
        return next((slot for slot in self.slots if slot.index == index), None)

    def _fork(self) -> None:
        index = 0
        while self._slot(index) is not None:
            index += 1
        self.slots.append(Slot(self, index))
        assert self._supervisor is not None
        self._supervisor.send(Kind.FORK, index)

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.PONG:
                self._unanswered_pings = 0
                self.usage.add(frame.meta, self.pool.engine.loop.time())
            case Kind.LOG:
                self.on_log(frame)
            case Kind.READY:
                pass  # imported; the slot's own READY follows @enter
            case Kind.FAILED:
                self.start_failed(failure_of(frame))
            case Kind.EXITED:
                self._on_exited(frame)
            case Kind.STACK:
                slot = self._slot(frame.seq)
                if slot is not None:
                    slot.stacks.answer(frame, None)
            case Kind.RECALLED:
                index, below = map(int, frame.meta.split("\0"))
                slot = self._slot(index)
                if slot is not None:
                    slot.recalled(frame.seq, below)
            case _:
                raise ProtocolError(f"a supervisor does not send {frame.kind.name}")

    def _on_exited(self, frame: Frame) -> None:
        fields = json.loads(frame.meta)
        reason = ExitReason(fields.get("code"), fields.get("signal"), bool(fields.get("oom")))
        if self._condemned:
            reason = ExitReason(detail=self._condemned)
        elif reason.signal == signal.SIGKILL and self._ran_out_of_memory():
            reason = reason._replace(oom=True)
        elif fields.get("cut"):
            reason = CUT
        slot = self._slot(frame.seq)
        if slot is None:
            if not self.ready:
                message = f"the import of {self.pool.name} ended its process: {reason}"
                self.start_failed(Failure("StartupError", message), again=_was_killed(reason))
            return
        self.slots.remove(slot)
        was_ready = slot.was_ready
        slot.lost(reason)
        if self.stopping or slot.retiring:
            return
        if was_ready:
            self._fork()
        elif not self._condemned:
            message = f"{self.pool.name}: an executor ended while it started: {reason}"
            self.start_failed(Failure("StartupError", message), again=True)

    def _ran_out_of_memory(self) -> bool:
        """Whether its cgroup counts one more kill than we knew of."""
        known = self._oom_kills
        if self.container is not None:
            self._oom_kills = self.container.oom_kills()
        return self._oom_kills > known

    def _on_supervisor_lost(self, reason: str) -> None:
        self._supervisor = None
        if not self._stop.is_set():
            self.condemn(reason if reason.startswith("it broke") else "")

    # --- for slots and the pool ----------------------------------------------------------------------

    def slot_ready(self, slot: Slot) -> None:
        slot.ready = slot.was_ready = True
        if not self.ready:
            self.ready = self._was_ready = True
            self._startup.cancel()
            self.ready_at = self.pool.engine.loop.time()
            elapsed = self.ready_at - self.started_at
            self.pool.engine.events.publish(
                "container.ready", self.pool.name, container=self.id, seconds=elapsed
            )
            self.pool.session_ready(self, elapsed)
        self.idle_since = self.pool.engine.loop.time()
        self.pool.dispatch()

    def start_failed(self, failure: Failure, again: bool = False) -> None:
        """The user's import or @enter failed, or the container did not start. `again`: another
        may do better."""
        failure = self.mask.failure(failure)
        self._condemned = self._condemned or f"it failed to start: {failure.message}"
        self._stop.set()
        self.pool.start_failed(self, failure, again)

    def _start_hung(self) -> None:
        engine = self.pool.engine
        spent = engine.loop.time() - self.started_at
        left = (
            engine.terminal.held_since(engine.clock.monotonic() - spent)
            + self._startup_timeout
            - spent
        )
        if left > 0:  # a debugger has the terminal, or had it
            self._startup = Deadline(engine.loop, max(left, LOOK_AGAIN), self._start_hung)
            return
        message = (
            f"{self.pool.name} was not ready after {self._startup_timeout:g} s (startup_timeout): its "
            "import or @enter hangs, or needs longer"
        )
        self.start_failed(Failure("StartupError", message))  # another would hang as long

    def interrupt(self, index: int, seq: int) -> None:
        if self._supervisor is not None:
            self._supervisor.send(Kind.INTERRUPT, seq, str(index))

    def ask_for_stack(self, index: int) -> None:
        if self._supervisor is not None:
            self._supervisor.send(Kind.STACK, index)

    def recall(self, index: int, below: int) -> None:
        if self._supervisor is not None:
            self._supervisor.send(Kind.RECALL, below, str(index))

    def lend(self) -> None:
        """All executors wait for nested calls: fork one more, for a call that could not run else."""
        staying = [slot for slot in self.slots if not slot.retiring]
        if len(self.slots) < MAX_SLOTS and all(s.ready and s.blocked for s in staying):
            self._fork()

    def take_back_lent(self) -> None:
        """Retire executors over one that are idle: nobody waits any more."""
        idle = [slot for slot in self.slots if slot.ready and not slot.load]
        free = sum(slot.ready and not slot.blocked for slot in self.slots)
        for slot in idle[: free - 1]:
            slot.retire()

    def kill_slot(self, slot: Slot) -> None:
        """SIGKILL the executor; EXITED brings its calls back and a new executor is forked."""
        self.pool.reclaim()
        if self._supervisor is not None and slot in self.slots:
            self._supervisor.send(Kind.KILL, slot.index)

    def condemn(self, reason: str) -> None:
        """End the container now; its calls are retried elsewhere."""
        self._condemned = self._condemned or reason or "its agent went away"
        self._stop.set()

    def retire(self) -> None:
        """Take no new calls, and stop when the last one is done."""
        self.pool.reclaim()
        self.stopping = True
        if not self.busy:
            self._stop.set()

    def became_idle(self, now: float) -> None:
        self.idle_since = now
        if self.busy:
            return
        if self.stopping:
            self._stop.set()
        else:  # the last plan may have seen it busy
            self.pool.engine.planner.wake_by(now + self.pool.scaling.scaledown_window)

    def request_stop(self) -> None:
        """Let it end in good order; it gets no more calls."""
        self.pool.reclaim()
        self.stopping = True
        self._stop.set()

    def _ask_to_stop(self) -> None:
        self.stopping = True
        for slot in self.slots:
            slot.stop()
        if self._supervisor is not None:
            self._supervisor.send(Kind.STOP)

    def on_log(self, frame: Frame) -> None:
        stream, call = frame.meta.split("\0")
        text = bytes(frame.payload.data).decode("utf-8", "backslashreplace")
        self.pool.engine.logs.add(self.pool.name, self.id, call, stream, text)

    def _close(self, reason: ExitReason) -> None:
        asked = self.stopping and not self._condemned
        self.ready, self.stopping = False, True
        self.container = None
        self.gone.set()
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.on_lost = lambda _: None
            supervisor.close()
        slots, self.slots = self.slots, []
        for slot in slots:
            slot.lost(reason)
        self.pool.engine.events.publish(
            "container.stopped",
            self.pool.name,
            container=self.id,
            reason=str(reason),
            asked=asked,
        )
        engine = self.pool.engine
        engine.gone.append(
            Gone(
                self.id,
                self.label,
                self.node,
                self.image,
                self.started_at,
                self.ready_at,
                self.usage,
                engine.loop.time(),
                "" if asked else str(reason),
            )
        )
        self.pool.session_ended(self, reason)
        self.secrets, self.mask = {}, NOTHING  # whoever still has it, has no secrets


class Gone(NamedTuple):
    """A container that has ended, as it is remembered for people. Times are the loop's."""

    id: str
    label: FunctionLabel
    node: str
    image: ImageRef
    started_at: float
    ready_at: float  # 0: it never was
    usage: Usage
    at: float
    reason: str  # empty: it was to stop


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


def _was_killed(reason: ExitReason) -> bool:
    """Whether its end says nothing of the next start: somebody killed it, or it could not start then."""
    return reason.passing or (reason.signal == signal.SIGKILL and not reason.oom)
