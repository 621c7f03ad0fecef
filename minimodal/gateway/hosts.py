"""Which request is for whom: a Host header and a path lead to an endpoint, or to the platform.

Pure. An endpoint is reached as `http://LABEL.localhost:PORT/…`, where its absolute paths work, and as
`http://localhost:PORT/LABEL/…` for clients whose resolver knows no `*.localhost`. The platform's own
pages are at `/`, `/-/…`, `/api/v1/…` and `/metrics`, which no label can be.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from minimodal.endpoints import match_path
from minimodal.types import WebRoute

OURS = ("localhost",)


class Kind(Enum):
    PLATFORM = "platform"
    ENDPOINT = "endpoint"
    WRONG_METHOD = "wrong method"  # the path is known, its method is not
    NOTHING = "nothing"
    FOREIGN = "foreign"  # a host name that is not ours: DNS rebinding, or a mistake


class Goal(NamedTuple):
    kind: Kind
    route: WebRoute | None = None
    prefix: str = ""  # of the path form: "/label"
    methods: tuple[str, ...] = ()  # that a known path allows


def name_of(host: str) -> str:
    """The name in a Host header: without port and brackets, in lower case."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def is_ours(name: str, known: Sequence[str] = ()) -> bool:
    """Whether a page may talk to the platform under this name. An address cannot be rebound."""
    return name in OURS or name in known or is_address(name)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def goal_of(
    host: str, path: str, method: str, routes: Sequence[WebRoute], known: Sequence[str] = ()
) -> Goal:
    """Where a request goes. `known`: host names of ours besides localhost."""
    name = name_of(host)
    for base in (*OURS, *known):
        label = name.removesuffix("." + base)
        if label != name:
            return _labelled(label, path, method, routes, "")
    if not is_ours(name, known):
        return Goal(Kind.FOREIGN)
    if is_platform(path):
        return Goal(Kind.PLATFORM)
    label = path[1:].partition("/")[0]
    goal = _labelled(label, path, method, routes, f"/{label}")
    if goal.kind is not Kind.NOTHING:
        return goal
    return _simple([r for r in routes if r.endpoint.kind == "simple"], path, method, "")


def is_platform(path: str) -> bool:
    return path in ("/", "/metrics") or path.startswith(("/-/", "/api/v1/")) or path == "/api/v1"


def _labelled(label: str, path: str, method: str, routes: Sequence[WebRoute], prefix: str) -> Goal:
    found = [route for route in routes if route.endpoint.label == label]
    if not found:
        return Goal(Kind.NOTHING)
    if found[0].endpoint.kind != "simple":
        return Goal(Kind.ENDPOINT, found[0], prefix)
    simple = [route for route in found if route.endpoint.kind == "simple"]
    return _simple(simple, path.removeprefix(prefix) or "/", method, prefix)


def _simple(routes: Sequence[WebRoute], path: str, method: str, prefix: str) -> Goal:
    """Of several paths that fit, the one with the fewest named parts: /users/me before /users/{id}."""
    fitting = [r for r in routes if match_path(r.endpoint.path, path) is not None]
    if not fitting:
        return Goal(Kind.NOTHING)
    fewest = min(r.endpoint.path.count("{") for r in fitting)
    best = [r for r in fitting if r.endpoint.path.count("{") == fewest]
    for route in best:
        wanted = route.endpoint.method
        if method == wanted or (method == "HEAD" and wanted == "GET"):
            return Goal(Kind.ENDPOINT, route, prefix)
    allowed = {r.endpoint.method for r in best} | {"OPTIONS"}
    if "GET" in allowed:
        allowed.add("HEAD")
    return Goal(Kind.WRONG_METHOD, None, prefix, tuple(sorted(allowed)))
