"""asgi_messages: what is packed comes out the same, and what nobody packed is a ProtocolError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimodal.asgi_messages import pack, unpack
from minimodal.errors import ProtocolError

NO_NUL = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
words = st.text(NO_NUL, max_size=20)
parts = st.binary(max_size=20).map(lambda part: part.replace(b"\0", b""))
headers = st.lists(st.tuples(parts, parts), max_size=5)
addresses = st.tuples(words.filter(bool), st.integers(0, 65535))
scopes = st.fixed_dictionaries(
    {
        "type": st.just("http"),
        "http_version": words,
        "method": words,
        "scheme": words,
        "path": words,
        "raw_path": parts,
        "query_string": parts,
        "root_path": words,
        "client": addresses,
        "server": addresses,
        "headers": headers,
        "body": st.binary(max_size=50),
        "more_body": st.booleans(),
    }
)
responses = st.fixed_dictionaries(
    {
        "type": st.just("http.response"),
        "status": st.integers(100, 599),
        "headers": headers,
        "body": st.binary(max_size=50),
        "more_body": st.booleans(),
    }
)
others = st.fixed_dictionaries(
    {"type": st.sampled_from(["websocket.send", "http.request", "websocket.close"])},
    optional={
        "text": st.text(NO_NUL),
        "bytes": st.binary(max_size=50),
        "code": st.integers(1000, 4999),
        "headers": headers,
    },
)


@given(scopes | responses | others)
def test_what_is_packed_comes_out_the_same(message: dict[str, Any]) -> None:
    assert unpack(pack(message)) == message


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: b"\2\5\0\0\0" + data))
def test_other_bytes_are_no_message(data: bytes) -> None:
    try:
        message = unpack(data)
    except ProtocolError:
        return
    assert isinstance(message["type"], str)


@given(scopes | responses, st.data())
def test_a_message_that_was_cut_short_forges_nothing(
    message: dict[str, Any], data: st.DataObject
) -> None:
    """A length that lies moves bytes between fields and body, and adds none."""
    packed = pack(message)
    end = data.draw(st.integers(0, len(packed)))
    try:
        found = unpack(packed[:end])
    except ProtocolError:
        return
    assert len(found["body"]) <= len(message["body"])


def test_a_nul_would_begin_another_field() -> None:
    response = {
        "type": "http.response",
        "status": 200,
        "body": b"",
        "headers": [(b"a", b"b\0c\0d")],
    }
    with pytest.raises(ValueError, match="NUL"):
        pack(response)


def test_headers_that_are_text() -> None:
    response = {"type": "http.response", "status": 200, "body": b"", "headers": [("a", "ü")]}
    assert unpack(pack(response))["headers"] == [(b"a", b"\xfc")]
