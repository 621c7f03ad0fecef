"""Answering the requests of one client at the other end of a socket.

What the client had attached ends with it: calls that it waited for, generators, apps that it opened.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from minimodal.errors import ProtocolError, name_of
from minimodal.protocols import Reply
from minimodal.wire import Frame, Kind

from .ops import Caller, Request

if TYPE_CHECKING:
    from .engine import Engine
    from .peer import Peer
    from .session import Session


class Serving:
    """Takes over a peer that has said hello. `session`: the container that it is in, if any."""

    def __init__(self, engine: Engine, peer: Peer, session: Session | None) -> None:
        self._engine = engine
        self._peer = peer
        self._caller = Caller(session=session)
        self._requests: dict[int, Request] = {}
        self._streams: set[str] = set()  # ids of its generators that have not ended
        self._apps: set[str] = set()  # ids of the apps that it opened
        peer.on_frame = self._on_frame
        peer.on_lost = self._on_lost

    def _on_frame(self, frame: Frame) -> None:
        if frame.kind is Kind.ABANDON:
            abandoned = self._requests.pop(frame.seq, None)
            if abandoned is not None:
                abandoned.abandon()
            return
        if frame.kind is not Kind.REQUEST:
            raise ProtocolError(f"a client does not send {frame.kind.name}")
        op, fields = json.loads(frame.meta)
        seq = frame.seq
        if self._caller.session is not None:  # the call that asks may have gone by a lease
            self._caller.session.pool.reclaim()

        def answered(answer: Reply | BaseException) -> None:
            self._requests.pop(seq, None)
            if isinstance(answer, Reply):
                self._peer.send(Kind.REPLY, seq, json.dumps(dict(answer.fields)), answer.payload)
            else:
                self._peer.send(Kind.REFUSED, seq, json.dumps([name_of(answer), str(answer)]))

        request = Request(self._engine, op, fields, frame.payload, answered, self._caller)
        self._requests[seq] = request
        request.start()
        if op == "app.open" and not fields.get("keep"):
            self._apps.add(fields["id"])
        elif op == "call.open":
            self._own_stream(fields["id"])

    def _own_stream(self, call_id: str) -> None:
        live = self._engine.calls.get(call_id)
        if live is not None:  # it was accepted
            self._streams.add(call_id)
            live.then(lambda _: self._streams.discard(call_id))

    def _on_lost(self, reason: str) -> None:
        for request in list(self._requests.values()):
            request.abandon()
        for call_id in list(self._streams):
            self._engine.cancel(call_id)
        for app_id in self._apps:
            self._engine.close_app(app_id)
