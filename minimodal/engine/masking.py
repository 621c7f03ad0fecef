"""Hiding secret values in what people read. Pure.

Hidden are the values themselves, each line of those that have several, and how Python and JSON write
them. Not hidden: values of fewer than four characters, which would make holes in every text, and
what the user's code has encoded or cut up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from minimodal.types import Failure, Payload

SHORTEST = 4
MASK = "***"


class Mask:
    """Hides some values. `span`: how many characters the longest of them has."""

    def __init__(self, values: Iterable[str]) -> None:
        words = sorted({word for value in values for word in _forms(value)}, key=len, reverse=True)
        self.span = len(words[0]) if words else 0
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None
        encoded = (word.encode("utf-8", "surrogateescape") for word in words)
        self._bytes = re.compile(b"|".join(map(re.escape, encoded))) if words else None

    def __bool__(self) -> bool:
        return self._pattern is not None

    def text(self, text: str) -> str:
        return self._pattern.sub(MASK, text) if self._pattern else text

    def bytes(self, data: bytes) -> bytes:
        """The same length: in a pickle, the length of a text stands before it."""
        if self._bytes is None:
            return data
        return self._bytes.sub(lambda match: b"*" * len(match[0]), data)

    def failure(self, failure: Failure) -> Failure:
        """A user's exception, in words and as a pickle, without the values."""
        if not self:
            return failure
        carried = failure.payload
        if carried is not None:
            buffers = tuple(bytearray(self.bytes(bytes(each))) for each in carried.buffers)
            carried = Payload(self.bytes(bytes(carried.data)), buffers)
        return failure._replace(
            message=self.text(failure.message),
            traceback=self.text(failure.traceback),
            payload=carried,
        )


NOTHING = Mask(())


def _forms(value: str) -> Iterable[str]:
    lines = value.splitlines() if "\n" in value or "\r" in value else []
    written = (repr(value)[1:-1], json.dumps(value)[1:-1])
    for form in (value, *(line.strip() for line in lines), *written):
        if len(form) >= SHORTEST:
            yield form
