"""The host's variables that a container needs to reach anything at all: certificates and proxies."""

from __future__ import annotations

CERTIFICATES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
NETWORK_VARIABLES: tuple[str, ...] = (
    *CERTIFICATES,
    *_PROXIES,
    *(name.lower() for name in _PROXIES),
)
