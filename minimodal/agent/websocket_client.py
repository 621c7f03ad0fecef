"""The client's side of the WebSocket protocol (RFC 6455), for servers inside the container.

Only what a proxy needs: the handshake, whole messages, ping answered by pong, close. No extensions.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from typing import Any

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE = 64 << 20
NOT_PASSED = (
    b"host",
    b"connection",
    b"upgrade",
    b"sec-websocket-key",
    b"sec-websocket-version",
    b"sec-websocket-extensions",
)
ITS_OWN = frozenset(  # headers of an answer that belong to the connection to the server
    b"connection upgrade sec-websocket-accept sec-websocket-extensions sec-websocket-protocol".split()
)
NO_CODE = (1005, 1006)  # stand for a close frame without a code, and for none at all


async def pass_on(host: str, port: int, target: bytes, scope: Any, receive: Any, send: Any) -> None:
    """Speak with the server for the client, until one of the two closes."""
    await receive()  # websocket.connect
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
    try:
        status, headers = await _handshake(reader, writer, target, scope)
        if status != 101:
            await _refused(reader, status, headers, send)
            return
        chosen = dict(headers).get(b"sec-websocket-protocol")
        passed = [each for each in headers if each[0] not in ITS_OWN]
        await send(
            {
                "type": "websocket.accept",
                "subprotocol": chosen.decode("latin-1") if chosen else None,
                "headers": passed,
            }
        )
        up = asyncio.get_running_loop().create_task(_up(receive, writer))
        try:
            code, reason = await _down(reader, writer, send)
        finally:
            up.cancel()
        await send({"type": "websocket.close", "code": code, "reason": reason})
    finally:
        writer.close()


async def _handshake(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: bytes, scope: Any
) -> tuple[int, list[tuple[bytes, bytes]]]:
    from .proxy import _head

    host = dict(scope["headers"]).get(b"host", b"localhost")
    lines = [
        b"GET " + target + b" HTTP/1.1",
        b"host: " + host,
        b"connection: Upgrade",
        b"upgrade: websocket",
        b"sec-websocket-version: 13",
        b"sec-websocket-key: " + base64.b64encode(os.urandom(16)),
        *(name + b": " + text for name, text in scope["headers"] if name not in NOT_PASSED),
    ]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n")
    return await _head(reader)


async def _refused(
    reader: asyncio.StreamReader, status: int, headers: list[tuple[bytes, bytes]], send: Any
) -> None:
    length = int(dict(headers).get(b"content-length", b"0"))
    body = await reader.readexactly(min(length, 1 << 20))
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


async def _up(receive: Any, writer: asyncio.StreamWriter) -> None:
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code, reason = message.get("code", 1005), message.get("reason")
            if code not in NO_CODE:
                payload = struct.pack("!H", code) + (reason or "").encode()
                writer.write(frame(CLOSE, payload))
            elif reason is not None:
                writer.write(frame(CLOSE, b""))
            else:
                writer.close()  # the client went away without a word
            return
        if message.get("text") is not None:
            writer.write(frame(TEXT, message["text"].encode()))
        else:
            writer.write(frame(BINARY, message.get("bytes") or b""))
        await writer.drain()


async def _down(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, send: Any
) -> tuple[int, str]:
    """Pass messages on until the server closes; its code and reason."""
    kind, parts = CONTINUED, bytearray()
    while True:
        try:
            final, code, payload = await _read_frame(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            return 1011, "the server went away"
        if code == PING:
            writer.write(frame(PONG, payload))
        elif code == CLOSE:
            known = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1000
            writer.write(frame(CLOSE, payload[:2]))
            return known, payload[2:].decode("utf-8", "replace")
        elif code in (TEXT, BINARY, CONTINUED):
            kind = code or kind
            parts += payload
            if len(parts) > MAX_MESSAGE:
                return 1009, "the message is too large"
            if final:
                text = kind == TEXT
                body: Any = parts.decode() if text else bytes(parts)
                await send({"type": "websocket.send", "text" if text else "bytes": body})
                parts.clear()


async def _read_frame(reader: asyncio.StreamReader) -> tuple[bool, int, bytes]:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    if size > MAX_MESSAGE:
        raise ConnectionError("a frame is too large")
    key = await reader.readexactly(4) if second & 0x80 else b""
    payload = await reader.readexactly(size)
    return bool(first & 0x80), first & 0x0F, masked(payload, key) if key else payload


def frame(code: int, payload: bytes) -> bytes:
    """A whole message as one frame, masked as a client must."""
    size = len(payload)
    head = bytes([0x80 | code])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    key = os.urandom(4)
    return head + key + masked(payload, key)


def masked(payload: bytes, key: bytes) -> bytes:
    """XOR with the repeated key; as one large integer, which is fast."""
    size = len(payload)
    stream = (key * (size // 4 + 1))[:size]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")
    return mixed.to_bytes(size, "big")
