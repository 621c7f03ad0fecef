"""Who may use the platform's own pages: the check before the API, the metrics and the dashboard.

On a loopback address everybody on this machine may; elsewhere a token is needed. A page of another
site may not, whatever it tricks a browser into: names that are not ours have been refused before
(hosts.py), and here a foreign Origin is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from .answers import Answer
from .headers import value
from .hosts import name_of
from .limits import Limits
from .tokens import PREFIX, Guesses, Rates, TokenFile

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK = ("127.", "::1", "::ffff:127.")


class Guard:
    """`refusal` is None for a request that may pass."""

    def __init__(self, tokens: TokenFile, limits: Limits, *, open_to_all: bool) -> None:
        self._tokens = tokens
        self._rates = Rates(limits.api_rate, limits.api_burst)
        self._open = open_to_all  # the gateway listens on loopback alone
        self._guesses = Guesses()

    def refusal(self, scope: Any, write: bool) -> Answer | None:
        if not same_origin(scope):
            return Answer(403, "A page of another site may not use this platform.")
        scopes = ("write",) if write else ("read", "write")
        address = (scope.get("client") or ("", 0))[0]
        if self._open and address.startswith(LOOPBACK):
            return self._too_often(address)
        refusal = self._token_refusal(scope, scopes, address)
        return refusal or self._too_often(
            "_".join(token_of(dict(scope["headers"])).split("_", 2)[:2])
        )

    def _too_often(self, who: str) -> Answer | None:
        wait = self._rates.wait(who, time.monotonic())
        if not wait:
            return None
        retry = ((b"retry-after", str(int(wait) + 1).encode()),)
        return Answer(
            429, "Too many requests to the platform; endpoints have no such limit.", retry
        )

    def endpoint_refusal(self, scope: Any) -> Answer | None:
        """For endpoints with requires_proxy_auth: a token, on any address."""
        return self._token_refusal(scope, ("web",), (scope.get("client") or ("", 0))[0])

    def user_of(self, last: Mapping[bytes, bytes]) -> str:
        """The user of a token of ours, or "default". Asked after any refusal: it refuses nothing."""
        given = token_of(last)
        token = self._tokens.check(given) if given.startswith(f"{PREFIX}_") else None
        return "default" if token is None else token.user

    def _token_refusal(self, scope: Any, scopes: tuple[str, ...], address: str) -> Answer | None:
        given = token_of(dict(scope["headers"]))
        token = self._tokens.check(given) if given else None
        if token is not None:
            if any(each in scopes for each in token.scopes):
                return None
            return Answer(403, f"This token may not do that; it needs the scope {scopes[0]}.")
        if given:
            wait = self._guesses.wrong(address, time.monotonic())
            if wait:
                retry = ((b"retry-after", str(int(wait) + 1).encode()),)
                return Answer(429, "Too many wrong tokens.", retry)
        return Answer(
            401,
            "A token is needed: `minimodal token create`, then Authorization: Bearer TOKEN.",
            # Basic for browsers, which ask for a password: the token is one, under any name.
            tuple(
                (b"www-authenticate", kind + b' realm="minimodal"')
                for kind in (b"Bearer", b"Basic")
            ),
        )


def token_of(last: Mapping[bytes, bytes]) -> str:
    """The token of a request: a bearer, the password of basic auth, or what a proxy's header has."""
    text = last.get(b"authorization", b"").decode("latin-1")
    kind, _, rest = text.partition(" ")
    if kind.lower() == "bearer":
        return rest.strip()
    if kind.lower() == "basic":
        import base64
        import binascii

        try:
            return base64.b64decode(rest, validate=True).decode().rpartition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return last.get(b"modal-secret", b"").decode("latin-1")


def same_origin(scope: Any) -> bool:
    """False for what a page of another site makes a browser send."""
    headers = scope["headers"]
    origin = value(headers, b"origin")
    if origin is not None:
        return origin.partition("://")[2].lower() == (value(headers, b"host") or "").lower()
    site = value(headers, b"sec-fetch-site")
    if site in (None, "same-origin", "none"):
        return True
    # Following a link from elsewhere to a page is harmless: the other site reads nothing of it.
    navigates = value(headers, b"sec-fetch-mode") == "navigate"
    return (
        navigates and scope.get("method") in SAFE and name_of(value(headers, b"host") or "") != ""
    )
