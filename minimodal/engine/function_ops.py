"""The operations about functions and their pools: variants, look-up, statistics, bounds (see ops.py)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from minimodal.codec import from_plain, to_plain
from minimodal.layers import ImageSpec
from minimodal.options import SCALING_OPTIONS, Options
from minimodal.protocols import Reply
from minimodal.types import (
    EMPTY,
    Batching,
    FunctionSpec,
    Payload,
    RetryPolicy,
    VolumeMount,
)

from .ops import Caller, Fields
from .pool import Origin
from .tally import BOUNDS

if TYPE_CHECKING:
    from .engine import Engine


class FunctionOps:
    """Handlers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        for name, handler in (
            ("function.variant", self.variant),
            ("function.info", self.info),
            ("function.stats", self.stats),
            ("function.autoscale", self.autoscale),
            ("function.tally", self.tally),
        ):
            engine.ops.add(name, handler)

    def variant(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """A function with other options: a pool of its own, made on first use."""
        base = self._engine.pool_of(fields["key"])
        spec = changed(base.spec, fields["changes"], fields["variant"], payload)
        pool = self._engine.add_pool(spec, base.app_name)
        first = base.origin.base if base.origin else base.key
        if base.origin is None:
            arguments = spec.parameters if "arguments" in fields["changes"] else None
            pool.origin = Origin(
                first, dict(fields["changes"]), fields["variant"], arguments or EMPTY
            )
        return Reply({"key": spec.key})

    async def info(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """What a function is. Raises NotFoundError."""
        await self._engine.hosting.wait_settled()
        spec = self._engine.pool_of(fields["key"]).spec
        shape = None if spec.shape is None else to_plain(spec.shape)
        return Reply(
            {
                "key": spec.key,
                "name": spec.name,
                "is_generator": spec.is_generator,
                "shape": shape,
            }
        )

    def stats(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        pool = self._engine.pool_of(fields["key"])
        return Reply(
            {
                "backlog": len(pool.queue),
                "num_total_runners": len(pool.sessions),
                "num_running_inputs": pool.running,
            }
        )

    def tally(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """What each function's calls came to, and what it does now; for metrics and charts."""
        engine = self._engine
        now = engine.loop.time()
        engine.sample()
        rows = [
            {
                "key": key,
                "name": pool.name,
                "app": pool.app_name,
                "variant": pool.spec.variant,
                "queued": len(pool.queue),
                "running": pool.running,
                "containers": len(pool.sessions),
                "ready": sum(session.ready for session in pool.sessions),
                **pool.tally.plain(now),
            }
            for key, pool in engine.pools.items()
        ]
        return Reply(
            {
                "bounds": list(BOUNDS),
                "functions": rows,
                "builds": engine.builds.times.plain(),
                "decisions": dict(engine.planner.decisions),
            }
        )

    def autoscale(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Other bounds for a pool that exists, until its app is sent again."""
        pool = self._engine.pool_of(fields["key"])
        given = {name: fields[name] for name in SCALING_OPTIONS}
        pool.scaling = Options(**given).scaling(pool.scaling)
        self._engine.planner.wake()
        return Reply({})


def changed(
    spec: FunctionSpec, changes: Fields, variant: str, arguments: Payload = EMPTY
) -> FunctionSpec:
    """`spec` with the options and constructor arguments of a variant (specs.variant_fields)."""
    given = dict(changes)
    fields: dict[str, Any] = {}
    if "resources" in given:
        asked: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in given["resources"].items()
        }
        fields["resources"] = Options(**asked).resources(spec.resources)
    if "scaling" in given:
        fields["scaling"] = Options(**given["scaling"]).scaling(spec.scaling)
    if "retries" in given:
        fields["retries"] = from_plain(RetryPolicy, given["retries"])
    if "image" in given:
        fields["image"] = from_plain(ImageSpec, given["image"])
    if "volumes" in given:
        fields["volumes"] = tuple(from_plain(VolumeMount, v) for v in given["volumes"])
    if "secrets" in given:
        fields["secrets"] = tuple(given["secrets"])
    if "env" in given:
        fields["env"] = tuple((k, v) for k, v in given["env"])
    if "batching" in given:
        fields["batching"] = from_plain(Batching, given["batching"])
    if "arguments" in given:
        fields["parameters"] = Payload(bytes(arguments.data), tuple(map(bytes, arguments.buffers)))
    names = ("timeout", "startup_timeout", "block_network", "single_use")
    for name in (*names, "max_inputs", "target_inputs"):
        if name in given:
            fields[name] = given[name]
    chained = hashlib.sha256(f"{spec.variant}{variant}".encode()).hexdigest()[:12]
    return spec._replace(variant=chained, **fields)
