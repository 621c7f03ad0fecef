"""`Connection`: a Client at the other end of a Unix socket.

Used inside containers (nested calls) and by other processes of this machine (the command line, a
script that uses a running engine). A reader thread takes the answers; it is started on first use,
and again in a process that forked from the user.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from . import wire
from .call import call_fields, outcome_from
from .errors import CallLost, NotRunningError, error_named
from .face import client_threads, stalls_loop
from .protocols import Reply
from .types import EMPTY, Call, CallState, Failure, Outcome, Payload
from .wire import Decoder, Frame, Kind, encode

if TYPE_CHECKING:
    from .protocols import Abandon, Answered, Done


class Connection:
    """Implements `protocols.Client` over a socket. Thread-safe."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._sock: socket.socket | None = None
        self._pid = 0
        self._next = 0
        self._waiting: dict[int, Answered] = {}
        self._refused = ""  # why the engine doesn't talk to us

    def is_alive(self) -> bool:
        """Whether the engine answers; connects if need be."""
        try:
            with self._lock:
                self._connected()
        except NotRunningError:
            return False
        return True

    def run(self, call: Call, done: Done) -> Abandon:
        def answered(answer: Reply | BaseException) -> None:
            if isinstance(answer, BaseException):
                words = Failure(type(answer).__name__, str(answer))
                done(Outcome(CallState.ERROR, None, words))
            else:
                done(outcome_from(answer.fields, answer.payload))

        return self.ask("call.run", call_fields(call), call.payload, answered)

    run_blocking = run

    def ask(
        self, op: str, fields: Mapping[str, Any], payload: Payload, answered: Answered
    ) -> Abandon:
        if stalls_loop():
            fields = {**fields, "stalls": True}  # our executor's loop answers nobody meanwhile
        meta = json.dumps([op, fields])
        with self._lock:
            sock = self._connected()
            self._next += 1
            seq = self._next
            self._waiting[seq] = answered
            try:
                self._send(sock, Kind.REQUEST, seq, meta, payload)
            except OSError as error:
                self._waiting.pop(seq, None)
                raise NotRunningError(
                    f"the engine at {self._path} went away: {self._refused or error.strerror}"
                ) from error
        return partial(self._abandon, seq)

    def close(self) -> None:
        with self._lock:
            if self._sock is not None:
                with contextlib.suppress(OSError):  # wakes the reader, which closes it
                    self._sock.shutdown(socket.SHUT_RDWR)
                self._sock = None

    def _abandon(self, seq: int) -> None:
        with self._lock:
            if self._waiting.pop(seq, None) is not None and self._sock is not None:
                with contextlib.suppress(OSError):  # it went away, and so did what it did for us
                    self._send(self._sock, Kind.ABANDON, seq, "", EMPTY)

    def _connected(self) -> socket.socket:
        if self._sock is not None and self._pid == os.getpid():
            return self._sock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(self._path)
        except OSError as error:
            sock.close()
            raise NotRunningError(
                f"no engine answers at {self._path} ({error.strerror}); start one with "
                "`minimodal up`"
            ) from error
        hello = {"role": "client", "version": wire.VERSION, "pid": os.getpid()}
        try:
            self._send(sock, Kind.HELLO, 0, json.dumps(hello), EMPTY)
        except OSError as error:
            sock.close()
            raise NotRunningError(f"the engine at {self._path} stops just now") from error
        self._sock, self._pid, self._waiting = sock, os.getpid(), {}
        threading.Thread(
            target=self._read, args=(sock, self._waiting), name="minimodal-client", daemon=True
        ).start()
        return sock

    @staticmethod
    def _send(sock: socket.socket, kind: Kind, seq: int, meta: str, payload: Payload) -> None:
        for part in encode(kind, seq, meta, payload):
            sock.sendall(part)

    def _read(self, sock: socket.socket, waiting: dict[int, Answered]) -> None:
        client_threads.add(threading.get_ident())
        decoder = Decoder(partial(self._on_frame, waiting))
        try:
            while n := sock.recv_into(decoder.get_buffer(-1)):
                decoder.buffer_updated(n)
        except OSError:
            pass  # closed here or lost; both end what still waits, below
        client_threads.discard(threading.get_ident())
        with self._lock:
            if self._sock is sock:
                self._sock = None  # the next request connects again
            sock.close()
            left = list(waiting.values())
            waiting.clear()
        for answered in left:
            answered(CallLost(self._refused or "the engine went away while it was asked"))

    def _on_frame(self, waiting: dict[int, Answered], frame: Frame) -> None:
        if frame.kind is Kind.REFUSED and not frame.seq:
            self._refused = json.loads(frame.meta)[1]
            return
        answered = waiting.pop(frame.seq, None)
        if answered is None:
            return  # abandoned meanwhile
        if frame.kind is Kind.REPLY:
            answered(Reply(json.loads(frame.meta), frame.payload))
        else:
            name, message = json.loads(frame.meta)
            answered(error_named(name, message))
