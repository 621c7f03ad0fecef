"""Named crash points of every multi-step change; free when off.

Owns the list of names and what an armed one does. `MINIMODAL_FAILPOINTS` arms them, in the form
`name=action[@n]`, separated by commas; the n-th pass acts (from the first, each pass, without it):

    kill        SIGKILL to this process
    stop        SIGSTOP: another process looks, then kills or continues
    raise       FailpointError; `raise:words` gives it a message
    sleep:0.5   wait so many seconds

The name `*` stands for every point, so `*=kill@7` crashes at the seventh step, whatever that is.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InvalidError

NAMES = (
    "blobs.put.created",
    "blobs.put.written",
    "blobs.put.synced",
    "blobs.put.renamed",
    "blobs.delete",
    "secrets.rotate.added",
    "secrets.rotate.file",
    "secrets.rotate.done",
    "secrets.write.sealed",
    "secrets.write.renamed",
    "store.open",
    "store.migrate.copied",
    "store.migrate.step",
    "store.migrate.done",
    "store.commit.begin",
    "store.commit.written",
    "store.commit.synced",
    "store.close",
    "volume.object.written",
    "volume.object.synced",
    "volume.object.renamed",
    "volume.commit.stored",
    "volume.commit.snapshot",
    "volume.commit.swapped",
    "volume.view.made",
    "volume.view.reloading",
    "volume.remove.renamed",
)


class FailpointError(Exception):
    """What an armed `raise` raises."""


@dataclass(slots=True)
class _Armed:
    action: str
    argument: str
    at: int | None  # act on this pass only; None: on each
    passes: int = 0


_armed: dict[str, _Armed] = {}


def failpoint(name: str) -> None:
    """Pass the point of that name. On a thread, or where waiting is allowed."""
    if _armed:
        for point in _due(name):
            if point.action == "sleep":
                time.sleep(float(point.argument))
            else:
                _act(point, name)


@contextlib.contextmanager
def armed(text: str) -> Iterator[None]:
    """Arm points for the block, in place of what was armed (tests)."""
    before = dict(_armed)
    _armed.clear()
    _armed.update(_parse(text))
    try:
        yield
    finally:
        _armed.clear()
        _armed.update(before)


def _due(name: str) -> list[_Armed]:
    if name not in NAMES:
        raise InvalidError(f"the failpoint {name!r} is not declared in failpoints.py")
    due: list[_Armed] = []
    for point in filter(None, (_armed.get(name), _armed.get("*"))):
        point.passes += 1
        if point.at is None or point.passes == point.at:
            due.append(point)
    return due


def _act(point: _Armed, name: str) -> None:
    match point.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise FailpointError(point.argument or f"failpoint {name}")


def _parse(text: str) -> dict[str, _Armed]:
    found: dict[str, _Armed] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, action = item.partition("=")
        action, _, at = action.partition("@")
        action, _, argument = action.partition(":")
        if not equals or (name not in NAMES and name != "*"):
            raise InvalidError(f"MINIMODAL_FAILPOINTS: no failpoint {name!r}; known: {NAMES}")
        if action not in ("kill", "stop", "raise", "sleep") or (at and not at.isdigit()):
            raise InvalidError(f"MINIMODAL_FAILPOINTS: {item!r} is not name=action[@n]")
        found[name] = _Armed(action, argument, int(at) if at else None)
    return found


_armed.update(_parse(os.environ.get("MINIMODAL_FAILPOINTS", "")))
