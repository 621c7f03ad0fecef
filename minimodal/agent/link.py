"""`Link`: a blocking socket to the engine that sends and receives frames. Safe to send from threads.

A process that forked from the owner may not use it: the child's frames would be taken for the
parent's (os.fork or multiprocessing in user code), so a send from another pid is refused.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque

from minimodal.errors import ProtocolError
from minimodal.types import Buffer, Payload
from minimodal.wire import Decoder, Frame, Kind, encode


class Link:
    """Frames over one socket. `receive` blocks; `receive_nowait` takes what is there."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._frames: deque[Frame] = deque()
        self._decoder = Decoder(self._frames.append)
        self._sending = threading.Lock()
        self._held: list[Buffer] = []
        self._forked = False
        os.register_at_fork(after_in_child=self._disown)  # getpid() for each frame costs 2 µs

    def _disown(self) -> None:
        self._forked = True
        self._held = []

    def send(
        self, kind: Kind, seq: int = 0, meta: str = "", payload: Payload | None = None
    ) -> None:
        if self._forked:
            raise ProtocolError("a forked child of the function may not speak for it")
        parts = encode(kind, seq, meta, payload)
        with self._sending:
            if self._held or len(parts) > 1:
                held, self._held = self._held, []
                parts = [b"".join((*held, parts[0])), *parts[1:]]
            for part in parts:
                self.sock.sendall(part)

    def hold(self, kind: Kind, seq: int, meta: str) -> bool:
        """Send a small frame with the next one, or at `flush`. True: somebody is to call that."""
        with self._sending:
            self._held += encode(kind, seq, meta)
            return len(self._held) == 1

    def flush(self) -> None:
        """Send what is held."""
        with self._sending:
            held, self._held = self._held, []
            if held:
                self.sock.sendall(b"".join(held))

    def receive(self) -> Frame | None:
        """The next frame, or None when the engine is gone."""
        while not self._frames:
            if not self._read(0):
                return None
        return self._frames.popleft()

    def receive_nowait(self) -> Frame | None:
        """A frame that is here already, or None. Raises EOFError when the engine is gone."""
        if not self._frames:
            try:
                if not self._read(socket.MSG_DONTWAIT):
                    raise EOFError
            except BlockingIOError:
                return None
        return self._frames.popleft() if self._frames else None

    def put_back(self, frames: list[Frame]) -> None:
        self._frames.extendleft(reversed(frames))

    def _read(self, flags: int) -> bool:
        try:
            n = self.sock.recv_into(self._decoder.get_buffer(-1), 0, flags)
        except (ConnectionError, OSError) as error:
            if isinstance(error, BlockingIOError):
                raise
            return False
        if n:
            self._decoder.buffer_updated(n)
        return n > 0

    def close(self) -> None:
        self.sock.close()


def connect(path: str) -> Link:
    """Connect to the engine's socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(path)
    return Link(sock)
