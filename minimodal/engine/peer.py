"""One byte stream from an agent or a client: frames in, frames out, and what it may send.

The first frame must be a HELLO of our version. Whoever breaks the format is cut off, and what was
behind the stream (a container, a client) hears of it through `on_lost`; nothing else is touched.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, cast

from minimodal import wire
from minimodal.errors import ProtocolError
from minimodal.types import Buffer, Payload
from minimodal.wire import Decoder, Frame, Kind, Limits, encode

log = logging.getLogger("minimodal.engine")

Welcome = Callable[["Peer", dict[str, Any]], None]


class Cork:
    """While it is entered, small frames and dispatching wait: a burst of answers, or of new calls,
    costs each pool one look for free slots and each peer one write.

    One for each engine: what is inside never awaits, so entering cannot interleave; what others do
    while it is held waits with it.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.peers: list[Peer] = []
        self._held = False
        self._last: list[Callable[[], None]] = []

    def hold(self, loop: asyncio.AbstractEventLoop) -> None:
        """Enter it until the loop has done what is ready now: work that came together is one burst."""
        if not self._held:
            self._held = True
            self.__enter__()
            loop.call_soon(self._release)

    def _release(self) -> None:
        self._held = False
        self.__exit__()

    def at_last(self, work: Callable[[], None]) -> None:
        """Do this when the burst is over, before its frames are written. Only while it is entered."""
        self._last.append(work)

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        while self.depth == 1 and self._last:
            last, self._last = self._last, []
            for work in last:
                work()
        self.depth -= 1
        if not self.depth and self.peers:
            peers, self.peers = self.peers, []
            for peer in peers:
                peer.flush()


class Peer(asyncio.BufferedProtocol):
    """`welcome` is called with the HELLO's fields; it sets `on_frame` and `on_lost`."""

    def __init__(self, welcome: Welcome, cork: Cork, limits: Limits | None = None) -> None:
        self._welcome = welcome
        self._cork = cork
        self._decoder = Decoder(self._frame, limits)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self.on_frame: Callable[[Frame], None] = self._too_early
        self.on_lost: Callable[[str], None] = lambda reason: None
        self.reason = ""
        self._out: list[Buffer] = []

    def send(
        self, kind: Kind, seq: int = 0, meta: str = "", payload: Payload | None = None
    ) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return  # on_lost tells the owner
        parts = encode(kind, seq, meta, payload)
        if len(parts) == 1:
            if not self._cork.depth:
                transport.write(parts[0])
                return
            if not self._out:
                self._cork.peers.append(self)
            self._out.append(parts[0])
        else:
            self.flush()
            transport.writelines(parts)

    def flush(self) -> None:
        """Write what was held back by the cork, in one piece."""
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(b"".join(out))

    def lend(self) -> int | None:
        """Stop reading, and give the descriptor to somebody else until `end_lease`.

        None where there is none, or something is on its way in either direction.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or self._out or not self._decoder.is_empty:
            return None
        sock = transport.get_extra_info("socket")
        if sock is None or transport.get_write_buffer_size():
            return None
        transport.pause_reading()
        descriptor: int = sock.fileno()
        return descriptor

    def end_lease(self, unwritten: bytes, unread: bytes) -> None:
        """Go on where the other has stopped: what it did not write, and read without understanding."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if unwritten:
            transport.write(unwritten)
        transport.resume_reading()
        if unread:
            self._guarded(self._decoder.feed, unread)

    def close(self, reason: str = "") -> None:
        self.reason = self.reason or reason
        self.flush()
        if self._transport is not None:
            self._transport.close()

    # --- asyncio.BufferedProtocol --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._decoder.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        self._guarded(self._decoder.buffer_updated, nbytes)

    def _guarded(self, decode: Callable[[Any], None], what: Any) -> None:
        try:
            with self._cork:
                decode(what)
        except Exception as error:
            # Whatever it is (a meta that is not what its kind says, or a bug of ours on the way), it
            # is this peer's alone: out of here it would end the engine, and hostile bytes may not.
            expected = isinstance(error, (ProtocolError, ValueError, KeyError, TypeError))
            log.warning(
                "a peer broke the protocol and is cut off: %s", error, exc_info=not expected
            )
            self.reason = f"it broke the protocol: {error}"
            if self._transport is not None:
                if self._greeted:
                    self._transport.abort()
                else:  # what was wrong is on its way to it
                    self._transport.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.on_lost(self.reason or (str(exc) if exc else "the connection ended"))

    def _frame(self, frame: Frame) -> None:
        if self._greeted:
            self.on_frame(frame)
            return
        if frame.kind is not Kind.HELLO:
            raise ProtocolError("the first frame is no HELLO")
        fields = json.loads(frame.meta)
        if not isinstance(fields, dict):
            raise ProtocolError("a HELLO without fields")
        if fields.get("version", wire.VERSION) != wire.VERSION:
            words = f"it speaks wire version {fields['version']}, this engine {wire.VERSION}"
            self.send(Kind.REFUSED, 0, json.dumps(["ProtocolError", words]))
            raise ProtocolError(words)
        self._greeted = True
        self._welcome(self, fields)

    def _too_early(self, frame: Frame) -> None:
        raise ProtocolError(f"unexpected {frame.kind.name}")
