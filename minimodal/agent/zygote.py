"""The process that imports the user's module once and forks an executor for each slot.

A fork costs 2 to 5 ms where an import of numpy and pandas costs hundreds. After the import nothing
but this loop runs here, so the copy that an executor gets is always the same clean one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import warnings
from mmap import mmap
from typing import Any

from minimodal import tracebacks
from minimodal.types import Payload
from minimodal.wire import Frame, Kind

from . import debugger, terminal
from .link import Link
from .stacks import listen
from .supervisor import exit_fields
from .target import Start, Target, explain_missing, load


class Zygote:
    """Imports, then forks on request and reports how executors end."""

    def __init__(
        self, supervisor: Link, path: str, start: Frame, shared: mmap, stacks: int
    ) -> None:
        self._supervisor = supervisor
        self._path = path
        self._start = Start.parse(start)
        self._shared = shared
        self._stacks = stacks  # the descriptor for executors to write their stacks to
        self._slots: dict[int, int] = {}  # pid -> slot
        self._target: Target | None = None

    def run(self) -> int:
        _end_with_parent()
        debugger.install(bool(self._start.fields.get("interactive")))
        try:
            self._target = load(self._start, self._path)
            _preload(self._start, self._target)
            terminal.input_ended("")
        except BaseException as error:
            self._supervisor.send(Kind.FAILED, 0, *failed(error))
            return 1
        _flush()
        self._supervisor.send(Kind.READY)
        wake, notify = socket.socketpair()
        for end in (wake, notify):
            end.setblocking(False)
        signal.set_wakeup_fd(notify.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._supervisor.sock, select.POLLIN)
        poll.register(wake, select.POLLIN)
        while True:
            poll.poll()
            try:
                wake.recv(4096)
            except BlockingIOError:
                pass
            self._reap()
            try:
                while (frame := self._supervisor.receive_nowait()) is not None:
                    if frame.kind is Kind.FORK:
                        self._fork(frame.seq, (wake, notify))
            except EOFError:
                return 0

    def _fork(self, slot: int, unwanted: tuple[socket.socket, ...]) -> None:
        with warnings.catch_warnings():
            # 3.12 warns when user code started threads at import; the fork is what we are here for.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid:
            self._slots[pid] = slot
            self._supervisor.send(Kind.FORK, slot, str(pid))
            return
        code = 70
        try:
            _end_with_parent()
            for sock in (*unwanted, self._supervisor.sock):
                sock.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _reseed()
            listen(self._stacks)
            from .executor import execute

            assert self._target is not None
            code = execute(self._path, slot, self._start, self._target, self._shared)
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            slot = self._slots.pop(pid, None)
            if slot is not None:
                code = os.waitstatus_to_exitcode(status)
                self._supervisor.send(Kind.EXITED, slot, exit_fields(code))


def _preload(start: Start, target: Target) -> None:
    """asyncio is half of a cold start: imported here it is not imported again after each fork."""
    from .executor import runs_on_loop

    if runs_on_loop(start, target):
        from . import concurrent

        del concurrent


def failed(error: BaseException) -> tuple[str, Payload | None]:
    """Meta and payload of a FAILED or ERROR frame."""
    failure = tracebacks.pack(explain_missing(debugger.explained(error)))
    words = {
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
    }
    return json.dumps(words), failure.payload


def _end_with_parent() -> None:
    """Where no pid namespace ends us all: a user's code may run, or hang, when its engine is killed."""
    if sys.platform == "linux" and "MINIMODAL_CONTAINER_ID" in os.environ:  # the process backend's
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # the user closed it


def _reseed() -> None:
    """The copies of one process must not draw the same random numbers. `random` does it by itself."""
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None and hasattr(numpy, "random"):
        numpy.random.seed()
