"""ASGI messages as bytes and back: what the gateway and the agent say to each other of a web request.

A request's scope and the start of a response, which each request has, are fields joined by NUL behind
a prefix; the other messages are one line of JSON. Behind either is the raw body. Nothing here is a
pickle: the gateway reads what a container sent, and trusts none of it, so `unpack` takes only what
an ASGI message may hold.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from .errors import ProtocolError
from .types import Buffer

REQUEST = "http"  # the scope of a request, with the first part of its body
RESPONSE = "http.response"  # start and first body in one: most responses are one message
PIECE_BYTES = 256 * 1024  # larger bodies travel in pieces, so that credits bound what waits

_encode = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes one each time
_RAW = ("body", "bytes")  # the fields that travel behind the line
_ENCODED = ("raw_path", "query_string")  # bytes of a scope, which are ASCII
_LEFT_OUT = ("app", "asgi", "extensions", "state")  # of a scope: each side has its own

_PREFIX = struct.Struct("<BI")  # what it is (no line of JSON begins so), bytes of the fields
_IS_REQUEST, _IS_RESPONSE = 1, 2
_REQUEST_FIELDS, _RESPONSE_FIELDS = 12, 2  # before the headers


def pack(message: Mapping[str, Any]) -> bytes:
    """The bytes of a message or of a request's scope. Raises ValueError for a NUL in a header."""
    kind = message["type"]
    if kind == REQUEST:
        host, port = message["server"] or ("", 0)
        client, client_port = message["client"] or ("", 0)
        fields = [
            b"1" if message["more_body"] else b"",
            message["http_version"].encode(),
            message["method"].encode(),
            message["scheme"].encode(),
            message["path"].encode(),
            message["raw_path"],
            message["query_string"],
            message["root_path"].encode(),
            client.encode(),
            b"%d" % client_port,
            host.encode(),
            b"%d" % port,
        ]
        return _with_fields(_IS_REQUEST, fields, message)
    if kind == RESPONSE:
        fields = [b"1" if message.get("more_body") else b"", b"%d" % message["status"]]
        return _with_fields(_IS_RESPONSE, fields, message)
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


def _with_fields(what: int, fields: list[Any], message: Mapping[str, Any]) -> bytes:
    for name, value in message["headers"]:
        fields += (name, value)
    try:
        head = b"\0".join(fields)
    except TypeError:  # an app that says text where ASGI says bytes
        head = b"\0".join([bytes(each, "latin-1") if isinstance(each, str) else each for each in fields])  # fmt: skip
    if head.count(b"\0") >= len(fields):
        raise ValueError("a header contains a NUL byte")
    return b"".join((_PREFIX.pack(what, len(head)), head, message.get("body", b"")))


def unpack(data: Buffer) -> dict[str, Any]:
    """The message that `pack` packed. Raises ProtocolError."""
    whole = bytes(data)
    try:
        if whole[:1] == b"{":
            return _from_line(whole)
        what, size = _PREFIX.unpack_from(whole)
        body = _PREFIX.size + size
        fields = whole[_PREFIX.size : body].split(b"\0")
        if what == _IS_RESPONSE:
            more, status = fields[:_RESPONSE_FIELDS]
            return {
                "type": RESPONSE,
                "status": int(status),
                "headers": _pairs(fields[_RESPONSE_FIELDS:]),
                "body": whole[body:],
                "more_body": bool(more),
            }
        if what == _IS_REQUEST:
            return _request(fields, whole[body:])
        raise ValueError(f"kind {what}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ProtocolError(f"no web message: {error!r}") from None


def _request(fields: list[bytes], body: bytes) -> dict[str, Any]:
    more, version, method, scheme, path, raw_path, query, root, client, client_port, host, port = (
        fields[:_REQUEST_FIELDS]
    )
    return {
        "type": REQUEST,
        "http_version": version.decode(),
        "method": method.decode(),
        "scheme": scheme.decode(),
        "path": path.decode(),
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root.decode(),
        "client": (client.decode(), int(client_port)),
        "server": (host.decode(), int(port)) if host else None,
        "headers": _pairs(fields[_REQUEST_FIELDS:]),
        "body": body,
        "more_body": bool(more),
    }


def _pairs(fields: list[bytes]) -> list[tuple[bytes, bytes]]:
    if len(fields) % 2:
        raise ValueError("a header without a value")
    each = iter(fields)
    return list(zip(each, each, strict=True))


def _from_line(whole: bytes) -> dict[str, Any]:
    end = whole.find(b"\n")
    head: dict[str, Any] = json.loads(whole[:end])
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
    if raw is not None:
        head[raw] = whole[end + 1 :]
    return head


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value, "latin-1")
