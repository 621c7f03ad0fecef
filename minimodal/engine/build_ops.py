"""`image.builds`: the images that were built or found since this engine started, with their logs.

Put together of the events, so an old build may have lost its first lines.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from minimodal.protocols import Reply
from minimodal.recipe import describe
from minimodal.types import Payload

from .ops import Caller

if TYPE_CHECKING:
    from minimodal.layers import ImageSpec

    from .engine import Engine

LINES = 400  # of one build that are shown

_DONE = re.compile(r"step (\d+) of \d+: .*: done in ([\d.]+) s")
_CACHED = re.compile(r"steps? (?:1 to )?(\d+) of \d+: cached")


def add_to(engine: Engine) -> None:
    def builds(caller: Caller, fields: Mapping[str, Any], payload: Payload) -> Reply:
        return Reply({"builds": list(_builds(engine).values())})

    engine.ops.add("image.builds", builds)


def _builds(engine: Engine) -> dict[str, dict[str, Any]]:
    """By the short digest that events name them by; the newest first."""
    found: dict[str, dict[str, Any]] = {}
    for event in engine.events.since(0):
        if not event.kind.startswith("image."):
            continue
        build = found.get(event.name)
        if build is None or (build["state"] != "building" and event.kind == "image.build"):
            found.pop(event.name, None)
            build = found[event.name] = _new(event.name, event.at)
        match event.kind:
            case "image.build":
                build["lines"].append(event.fields["text"])
            case "image.built":
                build |= {"state": "ready", "seconds": event.fields["seconds"]}
            case "image.failed":
                build |= {"state": "failed", "error": event.fields["text"]}
                build["seconds"] = event.at - build["started"]
    specs: dict[str, ImageSpec] = {}
    for pool in engine.pools.values():
        if pool.spec.image is not None:
            name = pool.spec.image.digest[:12]
            specs[name] = pool.spec.image
            if name in found and not pool.spec.variant:
                found[name]["functions"].append(pool.key)
    for name, build in found.items():
        if name in specs:
            build["layers"] = layers_of(specs[name], build["lines"])
        build["lines"] = list(build["lines"])
    return dict(reversed(found.items()))


def _new(name: str, at: float) -> dict[str, Any]:
    return {
        "name": name,
        "state": "building",
        "started": at,
        "seconds": None,
        "error": "",
        "lines": deque(maxlen=LINES),
        "layers": [],
        "functions": [],
    }


def layers_of(spec: ImageSpec, lines: Iterable[str]) -> list[dict[str, Any]]:
    """Each step in words, and the seconds that it took; None: it was there already."""
    made = {int(found[1]): float(found[2]) for line in lines if (found := _DONE.fullmatch(line))}
    cached = max((int(f[1]) for line in lines if (f := _CACHED.fullmatch(line))), default=0)
    return [
        {"text": describe(layer), "seconds": None if number <= cached else made.get(number)}
        for number, layer in enumerate(spec.layers, 1)
    ]
