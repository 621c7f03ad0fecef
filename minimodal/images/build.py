"""How an image is built, whatever the backend: each layer once, however many ask at the same time.

Owns the order of steps, the locks, and the words of a failure. How one layer is made, and whether it
is there, is the backend's builder's part: it gives `find` and `make`.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from minimodal.errors import BuildError, NotFoundError, VolumeError
from minimodal.layers import (
    Cmd,
    Entrypoint,
    ImageSpec,
    Layer,
    RunFunction,
    SetEnv,
    Shell,
    Snapshot,
    Workdir,
)
from minimodal.protocols import Report
from minimodal.recipe import describe
from minimodal.spec_types import VolumeMount
from minimodal.types import Mount, new_id

from .package_lists import Installed, PackageList, PackageLists, package_list

SETTINGS = (SetEnv, Workdir, Entrypoint, Cmd, Shell)  # change no file: nothing to build

Secrets = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]
"""Environment variables of secrets, by their ids, for one build step."""


async def no_secrets(ids: Sequence[str]) -> Mapping[str, str]:
    """Where no store of secrets was given."""
    if ids:
        raise BuildError(f"a build step needs the secrets {', '.join(ids)}, and there is no store")
    return {}


Volumes = Callable[[str, Sequence[VolumeMount]], AbstractAsyncContextManager[tuple[Mount, ...]]]
"""Working copies of volumes for one build step, which has an id; committed behind the block."""


@asynccontextmanager
async def no_volumes(step: str, mounts: Sequence[VolumeMount]) -> AsyncIterator[tuple[Mount, ...]]:
    """Where no store of volumes was given."""
    if mounts:
        raise BuildError("a build step needs volumes, and there is no store of them")
    yield ()


class Objects(NamedTuple):
    """What build steps may use of the home's named objects."""

    secrets: Secrets = no_secrets
    volumes: Volumes = no_volumes

    @classmethod
    def of(cls, config: Any) -> Objects:
        """As whoever opened the backend gave them: `config.resolve_secrets`, `config.mount_volumes`."""
        secrets = getattr(config, "resolve_secrets", None) or no_secrets
        return cls(secrets, getattr(config, "mount_volumes", None) or no_volumes)

    def volumes_for(self, layer: Layer) -> AbstractAsyncContextManager[tuple[Mount, ...]]:
        """The volumes of `run_function`, for the time of its step."""
        volumes = layer.volumes if isinstance(layer, RunFunction) else ()
        return self.volumes(new_id("build"), [VolumeMount(target, id) for target, id in volumes])


class Step(NamedTuple):
    """One layer that is to be made. `parent` is the digest of the nearest layer below with files."""

    number: int  # from 1
    of: int
    layer: Layer
    digest: str
    parent: str | None
    below: tuple[Layer, ...]  # all layers under it: settings such as the environment are there


class StepFailed(Exception):
    """Raised by `make`: what of the step failed, its exit code, and the tail of its output."""

    def __init__(self, what: str, code: int | None = None, tail: str = "") -> None:
        super().__init__(what)
        self.what, self.code, self.tail = what, code, tail


def steps_of(spec: ImageSpec, settings: tuple[type, ...] = SETTINGS) -> tuple[Step, ...]:
    """The layers that have files, in order; step numbers count all layers, as the user wrote them."""
    digests, parent, steps = spec.digests(), None, []
    for index, (layer, digest) in enumerate(zip(spec.layers, digests, strict=True)):
        if isinstance(layer, settings):
            continue
        below = spec.layers[:index]
        steps.append(Step(index + 1, len(digests), layer, digest, parent, below))
        parent = digest
    return tuple(steps)


class Builder:
    """Builds what is missing of images. One per backend; `locks` is a directory of its own.

    `settings`: the kinds of layers that change no file there. `look`: asks the backend anew whether a
    layer is there, where `find` only knows the layers of the image at hand.
    """

    def __init__(
        self,
        locks: Path,
        find: Callable[[str], bool],
        make: Callable[[Step, Report], Awaitable[None]],
        settings: tuple[type, ...] = SETTINGS,
        look: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._locks = locks
        self._lists = PackageLists(locks / "lists")
        self._look = look
        self._find = find
        self._make = make
        self._settings = settings
        self._turns: dict[str, anyio.Lock] = {}

    async def build(self, spec: ImageSpec, report: Report) -> Step:
        """Give the topmost step once all are built. Raises BuildError."""
        steps = steps_of(spec, self._settings)
        force = spec.force_from
        missing = len(steps)
        while missing and not self._find(steps[missing - 1].digest):
            missing -= 1
        first = missing if force is None else min(missing, _position(steps, force))
        if first == len(steps):
            return steps[-1]
        if first:
            last = steps[first - 1].number
            which = "step 1" if last == 1 else f"steps 1 to {last}"
            report(f"{which} of {steps[-1].of}: cached")
        for position in range(first, len(steps)):
            forced = force is not None and position >= _position(steps, force)
            await self._once(steps[position], report, forced)
        return steps[-1]

    async def _once(self, step: Step, report: Report, forced: bool) -> None:
        """Make a layer, or wait for whoever makes it: in this process or in another engine."""
        turn = self._turns.setdefault(step.digest, anyio.Lock())
        label = f"step {step.number} of {step.of}"
        if turn.locked():
            report(f"{label}: being built already, waiting")
        try:
            async with (
                turn,
                file_lock(
                    self._locks / step.digest,
                    lambda: report(f"{label}: another engine builds it, waiting"),
                ),
            ):
                if forced:
                    self._lists.clear()
                if forced or not await self._is_there(step.digest):
                    await self._onto_shorter_list(step, report, label, forced)
        finally:
            if not turn.locked() and not turn.statistics().tasks_waiting:
                self._turns.pop(step.digest, None)

    async def _onto_shorter_list(
        self, step: Step, report: Report, label: str, forced: bool
    ) -> None:
        """Make a layer, upon one that has a part of its packages if there is such a layer."""
        wanted = await anyio.to_thread.run_sync(package_list, step.parent or "", step.layer)
        if wanted is None:
            return await self._timed(step, report, label)
        shorter = None if forced else await self._shorter(wanted)
        if shorter is not None:
            report(f"{label}: {len(shorter.entries)} of its packages are there already")
            step = step._replace(parent=shorter.digest)
        await self._timed(step, report, label)
        with suppress(OSError):  # the layer is made; the note only saves time
            growth = shorter.growth + 1 if shorter else 0
            await anyio.to_thread.run_sync(self._lists.note, wanted, step.digest, growth)

    async def _shorter(self, wanted: PackageList) -> Installed | None:
        for installed in await anyio.to_thread.run_sync(self._lists.shorter, wanted):
            digest = installed.digest
            if await self._is_there(digest):
                return installed
            self._lists.forget(wanted, digest)
        return None

    async def _is_there(self, digest: str) -> bool:
        """Now, whatever was known before: another engine may have made it, or removed it."""
        return await self._look(digest) if self._look else self._find(digest)

    async def _timed(self, step: Step, report: Report, label: str) -> None:
        report(f"{label}: {describe(step.layer)}")
        started = time.monotonic()
        try:
            if isinstance(step.layer, Snapshot):
                raise StepFailed(
                    f"the sandbox's snapshot {step.layer.id} is gone, or of another home"
                )
            await self._make(step, report)
        except StepFailed as failure:
            raise _build_error(step, failure) from None
        except (NotFoundError, VolumeError) as error:  # a secret or a volume that is gone
            raise _build_error(step, StepFailed(str(error))) from error
        except OSError as error:
            where = StepFailed(f"{error.strerror or error}: {error.filename or 'the disk'}")
            raise _build_error(step, where) from error
        report(f"{label}: {describe(step.layer)}: done in {time.monotonic() - started:.1f} s")


def _position(steps: Sequence[Step], index: int) -> int:
    """Where the layer with that index, or the first one after it, is among the steps."""
    return next((n for n, step in enumerate(steps) if step.number > index), len(steps))


def _build_error(step: Step, failure: StepFailed) -> BuildError:
    code = "" if failure.code is None else f" with exit code {failure.code}"
    text = f"step {step.number} of {step.of} failed{code}: {failure.what}"
    if failure.tail:
        text += "\n" + "\n".join(f"    {line}" for line in failure.tail.splitlines()[-20:])
    if step.number > 1:
        kept = "Step 1 is" if step.number == 2 else f"Steps 1 to {step.number - 1} are"
        text += f"\n{kept} kept; the next build goes on from there."
    return BuildError(text, failure.tail)


@asynccontextmanager
async def file_lock(path: Path, waiting: Callable[[], None]) -> AsyncIterator[None]:
    """Hold the lock of that name against other engines. The kernel frees it if its holder dies.

    Polled: a thread that blocks in flock could not be cancelled.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    delay, told = 0.02, False
    while (fd := _try_lock(path)) is None:
        if not told:
            waiting()
            told = True
        await anyio.sleep(delay)
        delay = min(delay * 1.5, 0.5)
    try:
        yield
    finally:
        _unlock(path, fd)


def _try_lock(path: Path) -> int | None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.exists(path) and os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)  # held by another, or removed by the one who held it
    return None


def _unlock(path: Path, fd: int) -> None:
    path.unlink(missing_ok=True)
    fcntl.flock(fd, fcntl.LOCK_UN)  # said aloud: a forked child may hold the descriptor too
    os.close(fd)
