"""Opening an app, and putting a new version in the place of an old one without losing a call.

The new version's images are built and its containers tried beside the old one, which serves until
all is ready; where something does not start, the old one stays. Then the keys change hands in one step
of the loop: new calls go to the new pools, and the old ones finish all that they had accepted, with
the code that it was accepted with, and end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio

from minimodal.errors import ResourceExhaustedError, StartupError
from minimodal.types import Failure, FunctionSpec

from .function_ops import changed
from .nodes import never_fits
from .open_apps import App
from .pool import Pool

if TYPE_CHECKING:
    from .engine import Engine


class Rollout:
    """One version of an app on its way into an engine."""

    def __init__(
        self, engine: Engine, app_id: str, name: str, specs: Sequence[FunctionSpec]
    ) -> None:
        self._engine = engine
        self._app = app_id
        self._name = name
        self._specs = specs
        self._staged: dict[str, Pool] = {}  # by the key that each is to have

    @asynccontextmanager
    async def prepared(self, *, build: bool = True, check: bool = False) -> AsyncIterator[None]:
        """Everything up to the switch; what was not switched to at the end of the block is dropped.

        `check`: try that containers start. Raises ImageBuildError, StartupError,
        ResourceExhaustedError; the old version has noticed nothing then.
        """
        engine = self._engine
        for spec in self._specs:
            reason = never_fits(spec.resources, engine.planner.nodes)
            if reason is not None:
                raise ResourceExhaustedError(f"{spec.name} can never run here: {reason}")
        await engine.web.prepare(self._specs)
        if build:
            images = {spec.image.digest: spec.image for spec in self._specs if spec.image}
            await engine.builds.build_all(images.values())
        try:
            for spec in self._specs:
                self._stage(spec)
            if check:
                await self._try_all()
            yield
        finally:
            for pool in self._staged.values():
                engine.remove_pool(pool)

    def _stage(self, spec: FunctionSpec) -> None:
        old = self._engine.pools.get(spec.key)
        if old is not None and old.spec == spec:
            return
        pool = Pool(self._engine, spec, self._name)
        pool.image = self._engine.builds.of(spec)
        self._staged[spec.key] = pool
        self._engine.place(pool, self._engine.new_key(f"{spec.key}+"))

    # --- trying --------------------------------------------------------------------------------------

    async def _try_all(self) -> None:
        async with anyio.create_task_group() as tries:
            failures: list[str] = []

            async def try_one(pool: Pool) -> None:
                failure = await _try(pool)
                if failure is not None:
                    words = f"{failure.type.removeprefix('builtins.')}: {failure.message}"
                    failures.append(f"{pool.name} does not start: {words}")
                    tries.cancel_scope.cancel()

            for pool in self._worth_trying():
                tries.start_soon(try_one, pool)
        if failures:
            kept = "; the version before goes on" if self._app in self._engine.apps else ""
            raise StartupError(f"the new version of {self._name or self._app}: {failures[0]}{kept}")

    def _worth_trying(self) -> Iterator[Pool]:
        """Those whose old version is warm, and one of each module and image."""
        seen = set()
        warm = [key for key in self._staged if self._has_containers(key)]
        for key in (*warm, *(key for key in self._staged if key not in warm)):
            pool = self._staged[key]
            module = getattr(pool.spec.target, "module", key)
            code = (module, pool.spec.image.digest if pool.spec.image else "")
            shape = pool.spec.shape
            possible = not (shape and shape.needs_arguments and pool.spec.parameters is None)
            if possible and (key in warm or code not in seen):
                seen.add(code)
                yield pool

    def _has_containers(self, key: str) -> bool:
        old = self._engine.pools.get(key)
        return old is not None and bool(old.sessions)

    # --- the switch ----------------------------------------------------------------------------------

    def switch(
        self, *, deployed: bool, version: int | None = None, created: float | None = None
    ) -> None:
        """From now on calls go to the new version. `created`: when that was made, wall clock."""
        engine = self._engine
        names = {spec.key for spec in self._specs}
        for pool in [p for p in engine.pools.values() if p.spec.app == self._app]:
            if pool in self._staged.values() or pool.draining:
                continue
            base = pool.origin.base if pool.origin else pool.key
            if base not in names:
                engine.drain(pool)
            elif base in self._staged and pool.origin is not None:
                origin, new = pool.origin, self._staged[base].spec
                spec = changed(new, origin.changes, origin.variant, origin.arguments)
                self._staged[pool.key] = again = Pool(engine, spec, self._name)
                again.image, again.origin = engine.builds.of(spec), origin
            elif pool.key not in self._staged:
                pool.app_name = self._name
                pool.label = pool.label._replace(app_name=self._name)
                pool.reopened()
        staged, self._staged = self._staged, {}
        for key, pool in staged.items():
            old = engine.pools.get(key)
            if old is not None:
                engine.drain(old)
            engine.place(pool, key)
        opened_at = engine.clock.now() if created is None else created
        engine.opened(App(self._app, self._name, deployed, version, opened_at))


async def _try(pool: Pool) -> Failure | None:
    """Start a container beyond any budget, and wait until it is ready or has failed.

    It is not wasted: it is the new version's first.
    """
    if any(session.ready for session in pool.sessions):
        return None
    done, result = anyio.Event(), []

    def tried(failure: Failure | None) -> None:
        result.append(failure)
        done.set()

    pool.tried = tried
    if not pool.sessions:
        pool.start_session(pool.engine.planner.nodes[0].name)
    await done.wait()
    pool.tried = None
    return result[0]
