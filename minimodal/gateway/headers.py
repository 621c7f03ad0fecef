"""Headers between a client and an app: what ends here, and what the app is told about the way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Header = tuple[bytes, bytes]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"transfer-encoding upgrade".split()
)
_REPLACED = HOP_BY_HOP | frozenset(
    b"x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-prefix".split()
)
NAMED_ON_PURPOSE = frozenset(b"content-length content-type host date".split())


def value(headers: Iterable[Header], name: bytes) -> str | None:
    """The last value of a header."""
    found = None
    for key, text in headers:
        if key == name:
            found = text.decode("latin-1")
    return found


def listed(headers: Sequence[Header]) -> frozenset[bytes]:
    """The headers that `Connection` names: they end at the next hop too."""
    names = [
        name.strip().lower()
        for key, text in headers
        if key == b"connection"
        for name in text.split(b",")
    ]
    return frozenset(names) - NAMED_ON_PURPOSE


def to_app(
    headers: Sequence[Header], last: Mapping[bytes, bytes], client: str, scheme: str, prefix: str
) -> list[Header]:
    """A request's headers for the app. `last`: of each header its last value."""
    dropped = _REPLACED | listed(headers) if b"connection" in last else _REPLACED
    kept = [each for each in headers if each[0] not in dropped]
    before = last.get(b"x-forwarded-for")
    address = client.encode("latin-1")
    kept += [
        (b"x-forwarded-for", before + b", " + address if before else address),
        (b"x-forwarded-proto", scheme.encode()),
        (b"x-forwarded-host", last.get(b"host", b"")),
    ]
    if prefix:
        kept.append((b"x-forwarded-prefix", prefix.encode()))
    return kept


def below(prefix: str, scope: Mapping[str, Any]) -> dict[str, Any]:
    """The path for the app. In the path form "/label" alone is the app's root, not a file of its."""
    if scope["path"] == prefix:
        return {"path": prefix + "/", "raw_path": scope["raw_path"] + b"/"}
    return {"path": scope["path"], "raw_path": scope["raw_path"]}


def to_client(headers: Sequence[Header]) -> list[Header]:
    """A response's headers for the client."""
    dropped = HOP_BY_HOP
    if b"connection" in dict(headers):
        dropped |= listed(headers)
    return [(key, text) for key, text in headers if key not in dropped]


def content_length(last: Mapping[bytes, bytes]) -> int | None:
    """The declared length; the parser has refused what is no number."""
    text = last.get(b"content-length")
    return None if text is None else int(text)


def has_body(last: Mapping[bytes, bytes]) -> bool:
    return last.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in last
