"""`Callee`: what a call is addressed to. A function, a class and an object of it each have a pool.

Owns how the key of that pool is found: it is fixed (a look-up by name), or made from the app, or a
variant of another callee's pool with other options. It is asked for on first use and remembered for
as long as the client and the app stay the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import context
from .errors import InvalidError
from .face import both
from .options import SCALING_OPTIONS, Options, check

if TYPE_CHECKING:
    from .app import App
    from .protocols import Client

C = TypeVar("C", bound="Callee")

SAME_APP = "@/"  # stands for the app of the container that reads the handle


class FunctionStats(NamedTuple):
    """What a pool does now. `backlog`: calls that wait; `num_total_runners`: its containers."""

    backlog: int
    num_total_runners: int
    num_running_inputs: int


class Callee:
    """The address of a pool. All that does I/O also has `.aio`, which is awaited."""

    _name: str
    _app: App | None
    _options: Options
    _fixed_key: str | None
    _base: tuple[Callee, Options] | None  # this is a variant of it
    _resolved: tuple[Client, object, str] | None  # client, opening of the app, key
    _found: Client | None = None  # the engine that has what was looked up by name

    def _address(
        self,
        name: str,
        app: App | None,
        options: Options,
        key: str | None = None,
        base: tuple[Callee, Options] | None = None,
    ) -> None:
        self._name, self._app, self._options = name, app, options
        self._fixed_key, self._base, self._resolved = key, base, None

    @property
    def object_id(self) -> str:
        """What the engine knows it by. Raises InvalidError before it was used or hydrated."""
        key = self._known_key
        if key is None:
            raise InvalidError(f"{self!r} has no id before it is used; call .hydrate() on it")
        return key

    @both
    async def hydrate(self: C) -> C:
        """Find it now rather than on first use, opening its app if need be. Returns itself.

        Raises NotFoundError where there is nothing of its name.
        """
        client, key = await self._place()
        await context.ask("function.info", client=client, key=key)
        return self

    @both
    async def get_current_stats(self) -> FunctionStats:
        """How many calls wait and run, and in how many containers."""
        client, key = await self._place()
        reply = await context.ask("function.stats", client=client, key=key)
        return FunctionStats(**reply.fields)

    @both
    async def update_autoscaler(
        self,
        *,
        min_containers: int | None = None,
        max_containers: int | None = None,
        buffer_containers: int | None = None,
        scaledown_window: float | None = None,
    ) -> None:
        """Change the bounds of the running pool; what is not given stays as it is.

        `scaledown_window` is in seconds. The next `app.run()` or `deploy()` brings back the bounds
        of the decorator. Raises InvalidError for wrong bounds.
        """
        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        options = check(f"{self._name}.update_autoscaler", given)
        client, key = await self._place()
        changes = {n: getattr(options, n) for n in SCALING_OPTIONS}
        await context.ask("function.autoscale", client=client, key=key, **changes)

    # --- the key -----------------------------------------------------------------------------------

    async def _place(self) -> tuple[Client, str]:
        """The client to ask, and the key that it knows the pool by."""
        known = self._known_place()
        if known is not None:
            return known
        client = await self._client()
        return client, await self._key(client)

    def _known_place(self) -> tuple[Client, str] | None:
        """What the long way finds for a function of an app that is open as it was, without its steps."""
        app, resolved = self._app, self._resolved
        if app is None or resolved is None or self._base is not None or self._fixed_key is not None:
            return None
        client, opening, key = resolved
        same = client is context.get_client() and opening is app._open and app._served_by is None
        return (client, key) if same and not app._is_stale() else None

    async def _client(self) -> Client:
        """The engine of this process, or the one that has what was looked up by name.

        Raises InvalidError, before an engine is started, if it is no use.
        """
        self._require_app()
        if self._base is not None:
            return await self._base[0]._client()
        if self._app is not None and (there := self._app._served_by) is not None:
            if there.is_alive():
                return there
            self._app._served_by = None
        if self._fixed_key is None or self._fixed_key.startswith(SAME_APP):
            return context.get_client()
        here = context.container
        if here is not None and self._fixed_key.startswith(f"{here.app_id}/"):
            return context.get_client()
        if self._found is None or not self._found.is_alive():
            from .lookup import client_with

            self._found = await client_with(self._fixed_key)
        return self._found

    async def _key(self, client: Client) -> str:
        """What `_resolve` gave, remembered until the app is closed or opened again."""
        resolved = self._resolved
        stale = self._app is not None and self._app._is_stale()
        if (
            stale
            or resolved is None
            or resolved[0] is not client
            or resolved[1] is not self._opening
        ):
            key = await self._resolve(client)
            resolved = self._resolved = (client, self._opening, key)
        return resolved[2]

    @property
    def _known_key(self) -> str | None:
        """The key, if the app has not been closed since it was found."""
        resolved = self._resolved
        return resolved[2] if resolved is not None and resolved[1] is self._opening else None

    def _require_app(self) -> None:
        if self._fixed_key is None and self._base is None and self._app is None:
            raise InvalidError(f"{self!r} belongs to no app, so it can only be used locally")

    @property
    def _opening(self) -> object:
        return None if self._app is None else self._app._open

    async def _resolve(self, client: Client) -> str:
        """The key under which the engine knows the pool; opens its app if need be."""
        if self._fixed_key is not None:
            return self._fixed_key.replace(SAME_APP, own_app())
        if self._base is not None:
            from .specs import variant_key

            base, options = self._base
            return await variant_key(client, await base._key(client), options)
        assert self._app is not None
        return f"{await self._app._resolve(client)}/{self._name}"

    def _portable_key(self) -> str:
        """A key for a handle that travels. Its app may have no id yet: then it is the reader's."""
        if self._fixed_key is not None:
            return self._fixed_key.replace(SAME_APP, own_app())
        return self._known_key or f"{own_app()}{self._name}"


def own_app() -> str:
    return f"{context.container.app_id}/" if context.container else SAME_APP


def with_max_inputs(what: str, max_inputs: Any, target_inputs: Any) -> Options:
    """The options of `with_concurrency`. Raises InvalidError."""
    from .policy import check_concurrency

    check_concurrency(f"{what}.with_concurrency", max_inputs, target_inputs)
    return Options(max_inputs=max_inputs, target_inputs=target_inputs)


def with_batches(what: str, max_batch_size: Any, wait_ms: Any) -> Options:
    """The options of `with_batching`. Raises InvalidError."""
    from .policy import check_batching

    return Options(batching=check_batching(f"{what}.with_batching", max_batch_size, wait_ms))
