"""ASGI messages as bytes and back: what the gateway and the agent say to each other of a web request.

A packed message is one line of JSON and, behind it, the raw body. Nothing here is a pickle: the
gateway reads what a container sent, and trusts none of it, so `unpack` takes only what an ASGI
message may hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import ProtocolError
from .types import Buffer

RESPONSE = "http.response"  # start and first body in one: most responses are one message
PIECE_BYTES = 256 * 1024  # larger bodies travel in pieces, so that credits bound what waits

_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes one each time
_RAW = ("body", "bytes")  # the fields that travel behind the line
_ENCODED = ("raw_path", "query_string")  # bytes of a scope, which are ASCII
_LEFT_OUT = ("app", "asgi", "extensions", "state")  # of a scope: each side has its own


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message or of a request's scope."""
    head: dict[str, Any] = {}
    raw: Buffer = b""
    for name, value in message.items():
        if name in _RAW:
            if value is not None:
                head["raw"], raw = name, value
        elif name == "headers":
            head[name] = [[_text(key), _text(text)] for key, text in value]
        elif name in _ENCODED:
            head[name] = _text(value)
        elif name not in _LEFT_OUT:
            head[name] = value
    return b"".join((_encode(head).encode(), b"\n", raw))


def unpack(data: Buffer) -> dict[str, Any]:
    """The message that `pack` packed. Raises ProtocolError."""
    whole = bytes(data)
    end = whole.find(b"\n")
    try:
        head = json.loads(whole[:end])
        raw = head.pop("raw", None)
        if raw is not None and raw not in _RAW:
            raise ValueError("raw")
        if "headers" in head:
            head["headers"] = [
                (key.encode("latin-1"), text.encode("latin-1")) for key, text in head["headers"]
            ]
        for name in _ENCODED:
            if name in head:
                head[name] = head[name].encode("latin-1")
        if not isinstance(head["type"], str):
            raise ValueError("type")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError(f"no web message: {error!r}") from None
    if raw is not None:
        head[raw] = whole[end + 1 :]
    message: dict[str, Any] = head
    return message


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value, "latin-1")
