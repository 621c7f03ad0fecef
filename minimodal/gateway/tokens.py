"""Tokens of the platform: made by `minimodal token`, checked by the gateway, kept as hashes.

A token is `mm_ID_SECRET`; the secret has 256 random bits, so one round of SHA-256 is enough. What is
compared takes the same time whatever is wrong with it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from minimodal.errors import InvalidError, NotFoundError, StateError

SCOPES = ("read", "write", "web")  # look; retry, cancel, stop; endpoints that require a token
PREFIX = "mm"

_NOBODY = hashlib.sha256(b"nobody").hexdigest()


class Token(NamedTuple):
    """What is on record of one. The secret itself is nowhere."""

    id: str
    user: str
    scopes: tuple[str, ...]
    created: float
    hash: str
    expires: float | None = None


class TokenFile:
    """The tokens of a home: one JSON file with mode 0600, read again when it changes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._seen: tuple[int, int] | None = None
        self._tokens: dict[str, Token] = {}

    def create(
        self, user: str, scopes: tuple[str, ...] = SCOPES, seconds: float | None = None
    ) -> str:
        """Make a token and return it; it cannot be shown again. Raises InvalidError."""
        unknown = set(scopes) - set(SCOPES)
        if unknown or not scopes:
            raise InvalidError(
                f"scopes are {', '.join(SCOPES)}, not {', '.join(sorted(unknown)) or 'none'}"
            )
        if not user:
            raise InvalidError("a token belongs to a user: give a name")
        known, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        now = self._clock()
        expires = None if seconds is None else now + seconds
        token = Token(known, user, tuple(scopes), now, _hash(secret), expires)
        self._write([*self.all(), token])
        return f"{PREFIX}_{known}_{secret}"

    def all(self) -> list[Token]:
        """All that are on record, the oldest first. Raises StateError."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._seen, self._tokens = None, {}
            return []
        seen = (stat.st_mtime_ns, stat.st_ino)
        if seen != self._seen:
            try:
                rows = json.loads(self._path.read_bytes())
                tokens = [Token(**{**row, "scopes": tuple(row["scopes"])}) for row in rows]
            except (ValueError, TypeError, KeyError) as error:
                raise StateError(f"the token file {self._path} cannot be read: {error}") from error
            self._tokens, self._seen = {each.id: each for each in tokens}, seen
        return list(self._tokens.values())

    def revoke(self, token_id: str) -> None:
        """Raises NotFoundError."""
        tokens = self.all()
        left = [each for each in tokens if each.id != token_id]
        if len(left) == len(tokens):
            raise NotFoundError(f"there is no token {token_id}")
        self._write(left)

    def check(self, text: str) -> Token | None:
        """The token that this is, or None. As slow for a right id as for a wrong one."""
        self.all()
        kind, _, rest = text.partition("_")
        token_id, _, secret = rest.partition("_")
        token = self._tokens.get(token_id) if kind == PREFIX else None
        right = hmac.compare_digest(_hash(secret), token.hash if token else _NOBODY)
        if token is None or not right:
            return None
        return token if token.expires is None or token.expires > self._clock() else None

    def _write(self, tokens: list[Token]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".tokens-")  # mode 0600
        with os.fdopen(handle, "w") as file:
            json.dump([each._asdict() for each in tokens], file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, self._path)


class Guesses:
    """Wrong tokens by address: a few are an accident, many are an attack. Bounded, in memory."""

    def __init__(self, allowed: int = 20, window: float = 60.0, addresses: int = 10_000) -> None:
        self._allowed = allowed
        self._window = window
        self._addresses = addresses
        self._wrong: dict[str, tuple[float, int]] = {}  # address: since when, how many

    def wrong(self, address: str, now: float) -> float:
        """Count one; seconds until the address is listened to again, 0 while it is."""
        since, count = self._wrong.pop(address, (now, 0))
        if now - since >= self._window:
            since, count = now, 0
        self._wrong[address] = (since, count + 1)
        if len(self._wrong) > self._addresses:
            del self._wrong[next(iter(self._wrong))]
        return since + self._window - now if count >= self._allowed else 0.0


class Rates:
    """How often each address or token asks: a bucket for each that fills again. Bounded, in memory."""

    def __init__(self, rate: float, burst: int, known: int = 10_000) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._known = known
        self._left: dict[str, tuple[float, float]] = {}  # who: requests that are left, since when

    def wait(self, who: str, now: float) -> float:
        """Count one; 0, or the seconds after which the next one is taken."""
        left, since = self._left.pop(who, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate) - 1.0
        self._left[who] = (max(left, -1.0), now)
        if len(self._left) > self._known:
            del self._left[next(iter(self._left))]
        return 0.0 if left >= 0 else (1.0 - left) / self._rate


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
