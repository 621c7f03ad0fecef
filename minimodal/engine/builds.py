"""`Builds`: the images that functions and sandboxes of this engine need, each built once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.errors import Error, name_of
from minimodal.layers import ImageSpec
from minimodal.types import CallState, Failure, FunctionSpec, ImageRef, Outcome

from .tally import Times

if TYPE_CHECKING:
    from .engine import Engine
    from .pool import Pool


class Builds:
    """Owns what is built; the layers themselves are shared and locked by the backend."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._images: dict[tuple[Any, ...], ImageRef] = {}
        self._building: set[Pool] = set()
        self.times = Times()  # to build, or to find what is built

    def of(self, spec: FunctionSpec) -> ImageRef | None:
        """The image of a function, where it is built."""
        return self._images.get(_key(spec.image)) if spec.image else None

    def forget(self, pool: Pool) -> None:
        """A pool's image is gone: whoever needs it next has it built."""
        self._images.pop(_key(pool.spec.image), None)
        pool.image = None

    async def build_all(self, images: Iterable[ImageSpec]) -> None:
        """Build at the same time; the first failure is raised as itself and ends the others."""
        failures: list[Error] = []

        async def build(image: ImageSpec) -> None:
            try:
                await self.build(image)
            except Error as error:
                failures.append(error)
                builds.cancel_scope.cancel()

        async with anyio.create_task_group() as builds:
            for image in images:
                builds.start_soon(build, image)
        if failures:
            raise failures[0]

    async def build(self, image: ImageSpec) -> ImageRef:
        key = _key(image)
        ref = self._images.get(key)
        if ref is None or image.force_from is not None:
            name = image.digest[:12]

            def report(line: str) -> None:
                self._engine.events.publish("image.build", name, text=line)

            started = self._engine.loop.time()
            try:
                ref = self._images[key] = await self._engine.backend.build(image, report)
            except Error as error:
                self._engine.events.publish("image.failed", name, text=str(error))
                raise
            seconds = self._engine.loop.time() - started
            self.times.add(seconds)
            self._engine.events.publish("image.built", name, seconds=seconds)
        return ref

    def build_for(self, pool: Pool) -> None:
        """Build a pool's image in the background, then let the planner try again."""
        if pool not in self._building:
            self._building.add(pool)
            self._engine.tasks.start_soon(self._build_for, pool)

    async def _build_for(self, pool: Pool) -> None:
        try:
            pool.image = await self.build(pool.spec.image)
        except Error as error:
            failure = Failure(name_of(error), str(error))
            pool.fail_all(Outcome(CallState.ERROR, None, failure))
        finally:
            self._building.discard(pool)
            self._engine.planner.wake()


def _key(image: ImageSpec) -> tuple[Any, ...]:
    """Images with the same layers may differ in what is mounted."""
    return (image.digest, image.mounts, image.recipe)
