"""`Function`: what `@app.function` makes of a user's function, and every way of calling it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from . import context, pickling
from .call import FunctionCall, ItemReader, call_fields, value_of
from .callee import Callee, with_batches, with_max_inputs
from .errors import InvalidError
from .face import BothIterator, Pending, both, warn_unused
from .mapping import MapMethods
from .options import Options, check
from .types import Call, Outcome, new_id

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .app import App
    from .option_types import ClsOptions
    from .protocols import Client
    from .types import WebEndpoint

P = ParamSpec("P")
R = TypeVar("R", covariant=True)  # what a call gives
L = TypeVar("L", covariant=True)  # what it gives here: R, or a coroutine of an async function
T = TypeVar("T")


class _RemoteGenOf:
    """The attribute `remote_gen`, typed by what the user's generator yields."""

    @overload
    def __get__(
        self, instance: Function[P, Iterable[T], Any], owner: Any = None
    ) -> RemoteGen[P, T]: ...

    @overload
    def __get__(
        self, instance: Function[P, AsyncIterable[T], Any], owner: Any = None
    ) -> RemoteGen[P, T]: ...

    @overload
    def __get__(self, instance: None, owner: Any = None) -> _RemoteGenOf: ...

    def __get__(self, instance: Function[P, Any, Any] | None, owner: Any = None) -> Any:
        return self if instance is None else RemoteGen(instance)


class Function(Callee, MapMethods[P, R], Generic[P, R, L]):
    """A function that runs in containers of its own. Made by `@app.function()` or `from_name`.

    `f.remote(x)` runs it in a container and waits; `f.local(x)` runs it here. Each way that does I/O
    also has `.aio`, which is awaited. As a type it is `Function[parameters, result, local result]`;
    the last two differ for an `async def`.
    """

    def __init__(
        self,
        raw: Callable[P, L] | None,
        app: App | None,
        name: str,
        options: Options,
        *,
        method: str = "",
        key: str | None = None,
        is_generator: bool = False,
        base: tuple[Function[P, R, L], Options] | None = None,
    ) -> None:
        self._address(name, app, options, key, base)
        self.raw = raw
        self._method = method
        self._implicit = False  # @app.web_endpoint registered it; @app.function above may follow
        self._generator = is_generator
        if raw is not None:
            self.__wrapped__ = raw
            self.__name__ = getattr(raw, "__name__", name)
            self.__qualname__ = getattr(raw, "__qualname__", name)
            self.__module__ = raw.__module__
            self.__doc__ = raw.__doc__

    def __repr__(self) -> str:
        return f"<Function {self._name}>"

    def _repr_html_(self) -> str:
        import inspect

        from .display import card, options_of

        signature = str(inspect.signature(self.raw)) if self.raw is not None else ""
        about = (self.__doc__ or "").partition("\n")[0] if self.raw is not None else None
        app = repr(self._app) if self._app is not None else self._fixed_key
        rows = {"about": about, "app": app, **options_of(self._options)}
        return card("Function", self._name + signature, rows)

    @property
    def name(self) -> str:
        """The name under which the app knows it."""
        return self._name

    @property
    def is_generator(self) -> bool:
        """Whether it yields: `.remote_gen()` streams what it does."""
        return self._generator

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> L:
        """Run it here, as if it were not decorated."""
        return self.local(*args, **kwargs)

    def local(self, *args: P.args, **kwargs: P.kwargs) -> L:
        """Run the original function in this process, without its image, secrets or limits.

        Raises InvalidError where it was looked up by name.
        """
        if self.raw is None:
            raise InvalidError(
                f"{self._name} was looked up by name; its code is not here. Use .remote()"
            )
        return self.raw(*args, **kwargs)

    # --- calling -----------------------------------------------------------------------------------

    @both
    async def remote(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it in a container and wait for the result. Raises what the function raises."""
        self._require_plain("remote", "remote_gen")
        client, call = await self._call(args, kwargs)
        outcome: Outcome = await Pending(
            partial(client.run, call), start_blocking=partial(client.run_blocking, call)
        )
        return value_of(outcome, self._name)  # type: ignore[no-any-return]  # the user's value

    remote_gen = _RemoteGenOf()
    """Run a generator in a container; items arrive while it runs. For `for` and `async for`."""

    @both
    async def spawn(self, /, *args: P.args, **kwargs: P.kwargs) -> FunctionCall[R]:
        """Start it and return a handle as soon as the call is accepted.

        A spawned call is recorded before this returns: it survives the death of this process.
        """
        client, call = await self._call(args, kwargs, stream=self._generator)
        await context.ask("call.spawn", call.payload, client=client, **call_fields(call))
        return FunctionCall(call.id, self._name, client)

    async def _call(self, args: Any, kwargs: Any, stream: bool = False) -> tuple[Client, Call]:
        """The resolved client and a new Call. Pickling happens here, in the caller's thread."""
        self._require_no_endpoint()
        client, key = self._known_place() or await self._place()
        return client, self._pack(key, args, kwargs, stream)

    async def _packer(self) -> tuple[Callable[..., Call], Client]:
        """What makes Calls of arguments, and the client that takes them: for one, or for a burst."""
        self._require_no_endpoint()
        client, key = await self._place()
        return partial(self._pack, key), client

    def _pack(self, key: str, args: Any, kwargs: Any, stream: bool = False) -> Call:
        if args or kwargs:
            payload = pickling.dumps((args, kwargs), f"an argument of {self._name}")
        else:
            payload = pickling.NO_ARGUMENTS
        here = context.this_input()
        user, priority = context.acting.get()
        call = Call(new_id("fc"), key, payload, self._method, user, priority, stream=stream)
        if here is not None:
            call.parent, call.depth = here.call_id, here.depth + 1
        if context.on_call is not None:
            context.on_call(call.id)
        return call

    @both
    async def get_web_url(self) -> str | None:
        """The URL of its web endpoint, None where it has none. Opens its app if need be.

        The parameters of an object travel in the query, such as `?name=small`.
        """
        if self.raw is not None and endpoint_of(self.raw) is None:
            return None
        client, key = await self._place()
        reply = await context.ask("web.url", client=client, key=key, method=self._method)
        url: str | None = reply.fields["url"]
        query = await self._url_query(client) if url else ""
        return f"{url}?{query}" if query else url

    async def _url_query(self, client: Client) -> str:
        return ""

    def _require_no_endpoint(self) -> None:
        if self.raw is not None and endpoint_of(self.raw) is not None:
            raise InvalidError(
                f"{self._name} is a web endpoint: it is called by HTTP at the URL that "
                ".get_web_url() gives; .local() runs the function itself here"
            )

    def _require_plain(self, used: str, instead: str) -> None:
        if self._generator:
            raise InvalidError(
                f"{self._name} is a generator: .{used}() gives one value. Use .{instead}()"
            )

    # --- variants and look-up ----------------------------------------------------------------------

    def with_options(self, **options: Unpack[ClsOptions]) -> Function[P, R, L]:
        """The same function with other options and a container pool of its own. Lazy; chainable.

        Takes the options of `@app.function`, such as cpu, memory, timeout, retries, max_containers.
        Secrets and volumes replace the earlier ones. Raises InvalidError for a wrong option.
        """
        return self._variant(check(f"{self._name}.with_options", options))

    def with_concurrency(
        self, *, max_inputs: int, target_inputs: int | None = None
    ) -> Function[P, R, L]:
        """The same function with other `max_inputs` and `target_inputs` of `@concurrent`, and a pool of its own."""
        return self._variant(with_max_inputs(self._name, max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Function[P, R, L]:
        """The same function with other `max_batch_size` and `wait_ms` (milliseconds) of `@batched`, and a pool of its own."""
        return self._variant(with_batches(self._name, max_batch_size, wait_ms))

    def _variant(self, options: Options) -> Function[P, R, L]:
        return Function(
            self.raw,
            self._app,
            self._name,
            options,
            is_generator=self._generator,
            base=(self, options),
        )

    def _spec_fields(self) -> dict[str, Any]:
        """What a function adds to its FunctionSpec (specs.py)."""
        return {"is_generator": self._generator, "web": endpoint_of(self.raw)}

    @staticmethod
    def from_name(
        app_name: str, name: str, *, environment_name: str | None = None, version: Any = None
    ) -> Function[..., Any, Any]:
        """The function `name` of the app `app_name` that is deployed, or runs now, here. Does no I/O.

        Using it raises NotFoundError where there is none of that name. Raises InvalidError for a method's.
        """
        del environment_name, version  # one environment on one machine
        if "." in name:
            raise InvalidError(f"{name!r} names a method; use Cls.from_name({app_name!r}, …)")
        return Function(None, None, name, Options(), key=f"{app_name}/{name}")

    def __reduce__(self) -> Any:
        # A handle travels as its key: the other side has its own client.
        if self._base is not None and self._known_key is None:
            return _variant_of, self._base
        return _from_key, (self._portable_key(), self._name, self._generator)


def _from_key(key: str, name: str, is_generator: bool) -> Function[..., Any, Any]:
    return Function(None, None, name, Options(), key=key, is_generator=is_generator)


def _variant_of(base: Function[..., Any, Any], options: Options) -> Function[..., Any, Any]:
    return base._variant(options)


class RemoteGen(Generic[P, T]):
    """`f.remote_gen(...)` and `f.remote_gen.aio(...)`: the same two-faced iterator."""

    def __init__(self, function: Function[P, Any, Any]) -> None:
        self._function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> BothIterator[T]:
        function = self._function
        if not function.is_generator and function.raw is not None:
            raise InvalidError(f"{function.name} is no generator. Use .remote()")
        stream: _LazyStream[T] = _LazyStream(function, args, kwargs)
        return BothIterator(stream.advance, stream.close)

    def aio(self, *args: P.args, **kwargs: P.kwargs) -> BothIterator[T]:
        """For `async for item in f.remote_gen.aio(...)`."""
        return self(*args, **kwargs)


class _LazyStream(Generic[T]):
    """Starts the call when the first item is asked for."""

    def __init__(self, function: Function[Any, Any, Any], args: Any, kwargs: Any) -> None:
        self._function = function
        self._arguments = args, kwargs
        self._acting = context.acting.get()
        self._begun = False
        self._reader: ItemReader[T] | None = None

    def __del__(self) -> None:
        if not self._begun:
            warn_unused(f"{self._function.name}.remote_gen()", "a for-loop or list()")

    async def advance(self) -> T:
        self._begun = True
        if self._reader is None:
            client, call = await self._function._call(*self._arguments, stream=True)
            call.user, call.priority = self._acting
            await context.ask("call.open", call.payload, client=client, **call_fields(call))
            self._reader = ItemReader(call.id, self._function.name, client)
        return await self._reader.advance()

    async def close(self) -> None:
        if self._reader is not None:
            await self._reader.close()


def endpoint_of(raw: object) -> WebEndpoint | None:
    """What a web decorator left on a function (endpoints.py, which most programs never load)."""
    found: WebEndpoint | None = getattr(raw, "__minimodal_options__", {}).get("web")
    return found
