"""The first process of a container: talks to the engine, never runs user code.

It holds the control connection, forwards logs, kills and watches. User code is imported in the
*zygote*, a child that then forks one *executor* for each slot; so an import that hangs, crashes or
holds the GIL cannot stop heartbeats, kills or the exit when the engine is gone.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import selectors
import signal
import socket
import sys
from typing import Any

from minimodal import wire
from minimodal.types import Payload
from minimodal.wire import Frame, Kind

from .link import Link, connect
from .memory import OomKills
from .slot_words import BARRIER, BEGUN, CUT, INTERRUPT, SHARED_BYTES, SlotWords
from .stacks import Dumps, Thread
from .usage import usage

LOG_CHUNK = 64 * 1024


class Supervisor:
    """Runs until the engine says STOP or the control connection ends."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._engine = connect(path)
        self._zygote: Link | None = None
        self._zygote_pid = 0
        self._start: Frame | None = None
        self._pids: dict[int, int] = {}
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._outputs: dict[int, str] = {}
        self._shared = mmap.mmap(-1, SHARED_BYTES)
        self._oom_kills = OomKills()
        self._stacks = Dumps(self._signal, self._tell_stacks)

    def run(self) -> int:
        signal.signal(signal.SIGTERM, lambda *_: self._leave(143))
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # a terminal's Ctrl-C is the engine's to handle
        signal.signal(signal.SIGCHLD, lambda *_: None)
        wake, notify = socket.socketpair()
        wake.setblocking(False)
        notify.setblocking(False)
        signal.set_wakeup_fd(notify.fileno(), warn_on_full_buffer=False)
        self._selector.register(self._engine.sock, selectors.EVENT_READ, self._on_engine)
        self._selector.register(wake, selectors.EVENT_READ, lambda: self._on_signal(wake))
        self._selector.register(self._stacks.reader, selectors.EVENT_READ, self._stacks.on_readable)
        hello = {
            "role": "supervisor",
            "version": wire.VERSION,
            "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
            "pid": os.getpid(),
        }
        self._engine.send(Kind.HELLO, meta=json.dumps(hello))
        _prepare()
        while True:
            for key, _ in self._selector.select(self._stacks.timeout()):
                key.data()
            self._stacks.tick()

    # --- the engine --------------------------------------------------------------------------------

    def _on_engine(self) -> None:
        try:
            while (frame := self._engine.receive_nowait()) is not None:
                self._on_frame(frame)
        except (EOFError, ConnectionError):
            self._leave(0)

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.PING:
                self._engine.send(Kind.PONG, frame.seq, usage())
            case Kind.START:
                self._start = frame
                self._spawn_zygote()
            case Kind.FORK:
                if self._zygote is None:
                    self._spawn_zygote()
                if self._zygote is not None:
                    self._zygote.send(Kind.FORK, frame.seq)
            case Kind.INTERRUPT:
                slot = int(frame.meta)
                SlotWords(self._shared, slot).set(INTERRUPT, frame.seq)
                self._signal(slot, signal.SIGUSR1)
            case Kind.RECALL:
                self._recall(int(frame.meta), frame.seq)
            case Kind.KILL:
                self._signal(frame.seq, signal.SIGKILL)
            case Kind.STACK:
                self._stacks.ask(frame.seq)
            case Kind.STOP:
                self._stopping = True
                self._leave_if_done()
            case _:
                pass  # a later engine's frame that we do not know is not for us

    def _recall(self, slot: int, below: int) -> None:
        """Raise the barrier above the call that runs; whoever writes last sees the other's word."""
        words = SlotWords(self._shared, slot)
        while True:
            begun = words.get(BEGUN)
            words.set(BARRIER, begun + 1, below)
            if words.get(BEGUN) == begun:
                break
        self._engine.send(Kind.RECALLED, begun, f"{slot}\0{below}")

    def _signal(self, slot: int, number: int) -> bool:
        """Whether there is a process that got it; one that ended by itself has its EXITED on the way."""
        try:
            os.kill(self._pids[slot], number)
        except (KeyError, ProcessLookupError):
            return False
        return True

    def _tell_stacks(self, slot: int, threads: list[Thread]) -> None:
        self._engine.send(Kind.STACK, slot, json.dumps(threads))

    # --- the zygote --------------------------------------------------------------------------------

    def _spawn_zygote(self) -> None:
        assert self._start is not None
        mine, theirs = socket.socketpair()
        pipes = {name: os.pipe() for name in ("stdout", "stderr")}
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_zygote(theirs, pipes, mine)
        theirs.close()
        self._zygote, self._zygote_pid = Link(mine), pid
        self._selector.register(mine, selectors.EVENT_READ, self._on_zygote)
        for name, (reader, writer) in pipes.items():
            os.close(writer)
            os.set_blocking(reader, False)
            self._outputs[reader] = name
            self._selector.register(
                reader, selectors.EVENT_READ, lambda fd=reader: self._on_output(fd)
            )

    def _become_zygote(self, sock: socket.socket, pipes: dict[str, Any], mine: Any) -> None:
        code = 70
        try:
            mine.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._engine.close()
            os.dup2(pipes["stdout"][1], 1)
            os.dup2(pipes["stderr"][1], 2)
            for reader, writer in pipes.values():
                os.close(reader)
                os.close(writer)
            from .zygote import Zygote

            assert self._start is not None
            code = Zygote(
                Link(sock), self._path, self._start, self._shared, self._stacks.writer
            ).run()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)

    def _on_zygote(self) -> None:
        assert self._zygote is not None
        try:
            while (frame := self._zygote.receive_nowait()) is not None:
                if frame.kind is Kind.FORK:
                    self._pids[frame.seq] = int(frame.meta)
                    continue
                if frame.kind is Kind.EXITED:
                    self._pids.pop(frame.seq, None)
                    frame.meta = self._with_oom(frame.meta)
                self._engine.send(frame.kind, frame.seq, frame.meta, frame.payload)
        except (EOFError, ConnectionError):
            self._selector.unregister(self._zygote.sock)
            self._zygote.close()
            self._zygote = None
        self._leave_if_done()

    def _with_oom(self, meta: str) -> str:
        fields = json.loads(meta)
        if fields.get("signal") == signal.SIGKILL and self._oom_kills.rose():
            fields["oom"] = True
        return json.dumps(fields)

    def _on_signal(self, wake: socket.socket) -> None:
        try:
            wake.recv(4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._zygote_pid:
                self._zygote_ended(os.waitstatus_to_exitcode(status))

    def _zygote_ended(self, code: int) -> None:
        """All executors of a dead zygote are ended too: nobody could reap or report them."""
        self._zygote_pid = 0
        if self._zygote is not None:
            self._on_zygote()  # its last words, such as FAILED
        last_words = self._with_oom(exit_fields(-signal.SIGKILL))
        for slot in list(self._pids):
            self._signal(slot, signal.SIGKILL)
            self._pids.pop(slot)
            self._engine.send(Kind.EXITED, slot, last_words)
        if code != 0 and not self._stopping:
            self._engine.send(Kind.EXITED, 2**32, exit_fields(code))
        self._leave_if_done()

    # --- output ------------------------------------------------------------------------------------

    def _on_output(self, fd: int) -> None:
        """Bytes that C code, subprocesses or imports wrote; prints travel on the executors' links."""
        try:
            data = os.read(fd, LOG_CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(fd)
            os.close(fd)
            del self._outputs[fd]
            return
        self._engine.send(Kind.LOG, 0, self._outputs[fd] + "\0", Payload(data))

    def _leave_if_done(self) -> None:
        if self._stopping and not self._pids:
            self._leave(0)

    def _leave(self, code: int) -> None:
        for fd in list(self._outputs):
            self._on_output_rest(fd)
        for pid in [*self._pids.values(), self._zygote_pid]:
            if pid:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        os._exit(code)

    def _on_output_rest(self, fd: int) -> None:
        try:
            while data := os.read(fd, LOG_CHUNK):
                self._engine.send(Kind.LOG, 0, self._outputs[fd] + "\0", Payload(data))
        except OSError:
            pass  # nothing left, or nobody to tell: we are leaving


def _prepare() -> None:
    """While the engine answers: import what every zygote and executor needs, once for all of them.

    Frozen, ours is left alone by the collections that user code causes, and stays shared memory.
    """
    from . import executor

    del executor
    gc.freeze()
    gc.enable()


def exit_fields(code: int) -> str:
    """JSON of an exit status as `waitstatus_to_exitcode` gives it."""
    if code < 0:
        return json.dumps({"signal": -code})
    if code == CUT:
        return json.dumps({"code": code, "cut": True})
    return json.dumps({"code": code})
