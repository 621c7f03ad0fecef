"""Deployed apps: recorded in the store as versions, hosted by whichever engine is asked to.

`minimodal up` hosts them all and notices what another process deploys, rolls back or stops; any other
engine hosts those that were deployed through it, or looked up while nobody else has them.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from minimodal.codec import from_plain
from minimodal.errors import Error, InvalidError
from minimodal.protocols import Reply
from minimodal.types import FunctionSpec, Payload

from .deployments import Deployment
from .ops import Caller, Fields
from .rollout import Rollout

if TYPE_CHECKING:
    from .engine import Engine

log = logging.getLogger("minimodal.engine")

LOOK_INTERVAL = 1.0  # seconds between two looks at what others have deployed


class Hosting:
    """`engine.hosting`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._deployments = engine.durable.store.deployments
        self._everything = False
        self._settled = anyio.Event()
        self._settled.set()
        self._versions: dict[str, int] = {}  # hosted here, or tried to be
        self._locks: defaultdict[str, anyio.Lock] = defaultdict(anyio.Lock)
        for name, handler in (
            ("app.deploy", self._op_deploy),
            ("app.rollback", self._op_rollback),
            ("app.stop", self._op_stop),
            ("app.host", self._op_host),
        ):
            engine.ops.add(name, handler)

    def expect_all(self) -> None:
        """`host_all` is to come: who asks for an app meanwhile waits for it."""
        self._settled = anyio.Event()

    async def host_all(self) -> None:
        """Host what is deployed, now and from now on. Images are built when they are needed."""
        self._everything = True
        try:
            await self._follow()
        finally:
            self._settled.set()

    async def wait_settled(self) -> None:
        """Until what is deployed is hosted, if that has begun."""
        await self._settled.wait()

    async def host(self, app: str) -> None:
        """Host the version that is deployed, if that isn't so yet. Raises NotFoundError."""
        async with self._locks[app]:
            if app not in self._engine.apps:
                await self._open(await self._deployments.current(app))

    async def deploy(
        self, app: str, specs: Sequence[FunctionSpec], note: str = "", *, host: bool = True
    ) -> int:
        """Try a new version, put it on record, and serve it; `host` False: not here.

        Raises ImageBuildError and StartupError, and then nothing has changed.
        """
        if not app or "/" in app:
            raise InvalidError(f"{app!r} can't be the name of a deployed app")
        if wrong := [spec.key for spec in specs if spec.app != app]:
            raise InvalidError(f"{wrong[0]} is no function of the app {app!r}")
        async with self._locks[app]:
            rollout = Rollout(self._engine, app, app, specs)
            async with rollout.prepared(check=True):
                await self._engine.objects.secrets.keep(specs)
                version = await self._deployments.deploy(app, specs, note=note)
                if host:
                    self._versions[app] = version
                    rollout.switch(deployed=True, version=version)
        return version

    async def rollback(self, app: str, version: int | None) -> int:
        """Serve an earlier version again, as a new one. Raises what `deploy` does."""
        async with self._locks[app]:
            wanted = version or await self._deployments.before_current(app)
            specs = (await self._deployments.find(app, wanted)).specs
            rollout = Rollout(self._engine, app, app, specs)
            async with rollout.prepared(check=True):
                number = await self._deployments.rollback(app, wanted)
                if self._everything or app in self._engine.apps:
                    self._versions[app] = number
                    rollout.switch(deployed=True, version=number)
        return number

    async def stop(self, app: str) -> None:
        """No version runs any more; its unfinished calls are cancelled. Raises NotFoundError."""
        async with self._locks[app]:
            await self._deployments.stop(app)
            self._close(app)

    async def run(self) -> None:
        """Keep up with other processes."""
        while True:
            await anyio.sleep(LOOK_INTERVAL)
            if self._everything or self._versions:
                await self._follow()

    async def _follow(self) -> None:
        current = await self._deployments.versions()
        for app in [app for app in self._versions if app not in current]:
            async with self._locks[app]:
                self._close(app)
        for app, version in current.items():
            if self._versions.get(app, 0 if self._everything else version) != version:
                async with self._locks[app]:
                    await self._update(app)

    async def _update(self, app: str) -> None:
        try:
            deployment = await self._deployments.current(app)
            if self._versions.get(app) != deployment.version:
                self._versions[app] = deployment.version  # if it fails it is not tried for ever
                await self._open(deployment)
        except Error as error:
            log.error("the app %s: %s", app, error)
            self._engine.events.publish("notice", app, text=f"the app {app}: {error}")

    async def _open(self, deployment: Deployment) -> None:
        """A first version builds its images when they are needed: one that fails stops no other."""
        again = deployment.app in self._engine.apps
        rollout = Rollout(self._engine, deployment.app, deployment.app, deployment.specs)
        async with rollout.prepared(build=again, check=again):
            self._versions[deployment.app] = deployment.version
            rollout.switch(deployed=True, version=deployment.version, created=deployment.created)

    def _close(self, app: str) -> None:
        self._versions.pop(app, None)
        self._engine.close_app(app)

    # --- operations ----------------------------------------------------------------------------------

    async def _op_deploy(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        specs = [from_plain(FunctionSpec, plain) for plain in fields["functions"]]
        version = await self.deploy(
            fields["name"], specs, fields.get("note") or "", host=fields.get("host", True)
        )
        return Reply({"version": version})

    async def _op_rollback(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply({"version": await self.rollback(fields["app"], fields.get("version"))})

    async def _op_stop(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self.stop(fields["app"])
        return Reply({})

    async def _op_host(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        await self.host(fields["name"])
        return Reply({})
