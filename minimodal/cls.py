"""`Cls` and `Obj`: classes whose methods run in containers that keep their state.

`@app.cls()` turns a class into a `Cls`; calling that gives an `Obj`, whose methods are Functions. One
pool serves all methods of one set of constructor arguments. Nothing here does I/O before a method is
called; in a container the same names are bound to the instance that lives there.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from . import context, parameters, pickling
from .callee import Callee, with_batches, with_max_inputs
from .codec import from_plain
from .errors import InvalidError, NotFoundError
from .function import Function, endpoint_of
from .methods import OBJECT, Method, hooks_of, members, methods_of
from .options import Arguments, Options, check
from .types import ClassShape

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .app import App
    from .option_types import ClsOptions
    from .protocols import Client

P = ParamSpec("P")
R = TypeVar("R", covariant=True)
L = TypeVar("L", covariant=True)
T = TypeVar("T")

KIND = "__minimodal_kind__"  # of a class: what it becomes, if not a Cls


class Cls(Callee, Generic[T]):
    """A class that runs in containers. Made by `@app.cls()` or `Cls.from_name`; call it for an object.

    Attributes of the class are those of the user's own class.
    """

    def __init__(
        self,
        raw: type[T] | None,
        app: App | None,
        name: str,
        options: Options,
        *,
        key: str | None = None,
        shape: ClassShape | None = None,
        base: tuple[Cls[T], Options] | None = None,
    ) -> None:
        self._address(name, app, options, key, base)
        self.raw = raw
        self.shape = shape  # None: looked up and not asked for yet
        if raw is not None:
            self.__name__, self.__qualname__ = raw.__name__, raw.__qualname__
            self.__module__, self.__doc__ = raw.__module__, raw.__doc__

    def __repr__(self) -> str:
        return f"<Cls {self._name}>"

    def _repr_html_(self) -> str:
        from .display import card, options_of

        methods = list(methods_of(self.raw)) if self.raw else None
        return card("Cls", self._name, {"methods": methods, **options_of(self._options)})

    @property
    def name(self) -> str:
        """The name under which the app knows it."""
        return self._name

    def __call__(self, *args: Any, **kwargs: Any) -> T:
        """An object with these constructor arguments. Starts nothing.

        Raises InvalidError for arguments that the class's parameters do not allow.
        """
        if self.shape is not None and self.shape.parameters is not None:
            parameters.bind(self._name, self.shape.parameters, args, kwargs)
        elif self.raw is not None:
            inspect.signature(self.raw).bind(*args, **kwargs)
        return cast(T, Obj(self, args, kwargs))

    def __getattr__(self, name: str) -> Any:
        raw = self.__dict__.get("raw")
        if raw is None or name.startswith("__"):
            raise AttributeError(
                f"{self.__dict__.get('_name', 'a class')} has no attribute {name!r} here. Make an "
                "object first to call a method"
            )
        return getattr(raw, name)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        """`class Child(Decorated)` inherits from the user's class."""
        if self.raw is None:
            raise InvalidError(f"{self._name} was looked up by name; its code is not here")
        return (self.raw,)

    @staticmethod
    def from_name(
        app_name: str, name: str, *, environment_name: str | None = None, version: Any = None
    ) -> Cls[Any]:
        """The class `name` of the app `app_name` that is deployed, or runs now, here. Does no I/O.

        Using an object of it raises NotFoundError where there is no such class or method.
        """
        del environment_name, version  # one environment on one machine
        return Cls(None, None, name, Options(), key=f"{app_name}/{name}")

    def with_options(self, **options: Unpack[ClsOptions]) -> Cls[T]:
        """The same class with other options and pools of its own. Lazy; chainable.

        Takes the options of `@app.cls`. Secrets and volumes replace the earlier ones. Raises
        InvalidError for a wrong option.
        """
        return self._variant(check(f"{self._name}.with_options", options))

    def with_concurrency(self, *, max_inputs: int, target_inputs: int | None = None) -> Cls[T]:
        """The same class with other `max_inputs` and `target_inputs` of `@concurrent`, and pools of its own."""
        return self._variant(with_max_inputs(self._name, max_inputs, target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Cls[T]:
        """The same class with other `max_batch_size` and `wait_ms` (milliseconds) of `@batched`, and its own pools.

        Raises InvalidError where the class has more than one method.
        """
        if self.shape is not None and len(self.shape.methods) > 1:
            raise InvalidError(f"{self._name} has several methods; with_batching() is for one")
        return self._variant(with_batches(self._name, max_batch_size, wait_ms))

    def _variant(self, options: Options) -> Cls[T]:
        return Cls(self.raw, self._app, self._name, options, shape=self.shape, base=(self, options))

    async def _known_shape(self, client: Client) -> ClassShape:
        if self.shape is None:
            reply = await context.ask("function.info", client=client, key=await self._key(client))
            if reply.fields["shape"] is None:
                raise NotFoundError(f"{self._name} is a function: use Function.from_name")
            self.shape = from_plain(ClassShape, reply.fields["shape"])
        return self.shape

    def _spec_fields(self) -> dict[str, Any]:
        """What a class adds to its FunctionSpec (specs.py)."""
        fields: dict[str, Any] = {"is_class": True, "shape": self.shape}
        web = []
        for name, each in methods_of(self.raw).items() if self.raw else ():
            options = getattr(each.raw, "__minimodal_options__", {})
            if "batching" in options:
                fields["batching"] = options["batching"]
            endpoint = endpoint_of(each.raw)
            if endpoint is not None:
                web.append((name, endpoint))
        return {**fields, "web_methods": tuple(web)}

    def __reduce__(self) -> Any:
        if self._base is not None and self._known_key is None:
            return _variant_of, self._base
        return _from_key, (self._portable_key(), self._name, self.shape)


def _from_key(key: str, name: str, shape: ClassShape | None) -> Cls[Any]:
    return Cls(None, None, name, Options(), key=key, shape=shape)


def _variant_of(base: Cls[Any], options: Options) -> Cls[Any]:
    return base._variant(options)


class Obj:
    """An object of a Cls: its methods run in containers, everything else is a local instance's.

    The local instance is made when it is first needed; its @enter methods run once, before its
    first `.local()`. `update_autoscaler` changes the bounds of this object's own pool.
    """

    def __init__(self, cls: Cls[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._cls = cls
        self._arguments = args, kwargs
        self._pool = _ObjectCallee(self)
        self._bound: dict[str, BoundMethod[..., Any, Any]] = {}
        self._instance: Any = None
        self._entered = False
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        args, kwargs = self._arguments
        shown = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{self._cls.name}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        from .display import card

        return card("Object", repr(self), {"of": repr(self._cls)})

    @property
    def update_autoscaler(self) -> Any:
        """Change the bounds of this object's pool: see `Function.update_autoscaler`."""
        return self._pool.update_autoscaler

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raw = self._cls.raw
        if raw is not None:
            return getattr(self._local(), name)
        if name.startswith("_"):
            raise AttributeError(f"{self!r} has no {name!r} here: only its methods are known")
        return self._bound.get(name) or self._bind(_named_method(name, self._cls.shape))

    def _bind(self, method: Method[P, R, L]) -> BoundMethod[P, R, L]:
        known = self._bound.get(method.name)
        if known is None or known.raw is not method.raw:  # super() takes the parent's
            known = self._bound[method.name] = BoundMethod(self, method)
        return cast("BoundMethod[P, R, L]", known)

    # --- the instance in this process --------------------------------------------------------------

    def _local(self) -> Any:
        with self._lock:
            if self._instance is None:
                self._instance = instance_of(self._cls, self._arguments)
                _link(self._instance, self)
            return self._instance

    def _pending_enters(self) -> list[Callable[[], Any]]:
        """The @enter methods that are still to be run; after this call they are not any more."""
        with self._lock:
            instance = self._local()
            if self._entered:
                return []
            self._entered = True
            raw = type(instance)
            names = hooks_of(raw, "enter", snap=True) + hooks_of(raw, "enter")
            return [getattr(instance, name) for name in names]

    def __reduce__(self) -> Any:
        return _object, (self._cls, *self._arguments)


def _object(cls: Cls[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Obj:
    return Obj(cls, args, kwargs)


def _named_method(name: str, shape: ClassShape | None) -> Method[..., Any, Any]:
    """Stands for a method of a class whose code is not here."""

    def elsewhere(*args: Any, **kwargs: Any) -> Any:
        raise InvalidError(f"{name} was looked up by name; its code is not here. Use .remote()")

    elsewhere.__name__ = elsewhere.__qualname__ = name
    return Method(elsewhere, shape is not None and (name, True) in shape.methods)


def _link(instance: Any, obj: Obj) -> None:
    try:
        object.__setattr__(instance, OBJECT, obj)
    except AttributeError:
        pass  # __slots__: its methods can be called from outside, not through self


def object_of(instance: object) -> Obj:
    """The Obj whose instance it is; for an instance of an undecorated class one of its own."""
    obj = getattr(instance, OBJECT, None)
    if obj is None:
        raw = type(instance)
        obj = Obj(Cls(raw, None, raw.__name__, Options()), (), {})
        obj._instance = instance
        _link(instance, obj)
    return cast(Obj, obj)


def adopt(cls: Cls[Any], key: str, arguments: tuple[Any, Any]) -> Obj:
    """The object that a container was started for. Its instance is made, not entered."""
    obj = Obj(cls, *arguments)
    obj._pool._fixed_key = key
    obj._local()
    obj._entered = True  # the agent runs the hooks
    return obj


def instance_of(cls: Cls[Any], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """The user's own instance."""
    raw = cls.raw
    assert raw is not None
    args, kwargs = arguments
    declared = parameters.collect(raw)
    if not declared:
        return raw(*args, **kwargs)
    instance = raw()
    for name, value in parameters.bind(cls.name, declared, args, kwargs).items():
        object.__setattr__(instance, name, value)
    return instance


class _ObjectCallee(Callee):
    """The pool of one object: a variant of its class's, unless all its parameters are defaults."""

    def __init__(self, obj: Obj) -> None:
        self._obj = obj
        self._address(obj._cls.name, obj._cls._app, Options())

    def __repr__(self) -> str:
        return repr(self._obj)

    def _require_app(self) -> None:
        if self._fixed_key is None:
            self._obj._cls._require_app()

    async def _client(self) -> Client:
        if self._fixed_key is not None:
            return await super()._client()
        return await self._obj._cls._client()

    async def _resolve(self, client: Client) -> str:
        if self._fixed_key is not None:
            return self._fixed_key
        cls = self._obj._cls
        args, kwargs = self._obj._arguments
        shape = await cls._known_shape(client)
        if shape.parameters is not None:
            values = parameters.bind(cls.name, shape.parameters, args, kwargs)
            if parameters.are_defaults(shape.parameters, values):
                return await cls._key(client)
            text = parameters.identity(values)
            arguments = Arguments(text, pickling.dumps(((), values)))
        elif not args and not kwargs:
            return await cls._key(client)
        else:
            import hashlib

            payload = pickling.dumps((args, kwargs), f"an argument of {cls.name}")
            parts = b"".join([payload.data, *map(bytes, payload.buffers)])
            arguments = Arguments(hashlib.sha256(parts).hexdigest(), payload)
        self._base = (cls, Options(arguments=arguments))
        return await super()._resolve(client)


class BoundMethod(Function[P, R, L]):
    """A method of one object. It shares the object's pool with the other methods."""

    def __init__(self, obj: Obj, method: Method[P, R, L]) -> None:
        cls = obj._cls
        super().__init__(
            method.raw,
            cls._app,
            f"{cls.name}.{method.name}",
            Options(),
            method=method.name,
            is_generator=method.is_generator,
        )
        self._obj = obj

    def local(self, *args: P.args, **kwargs: P.kwargs) -> L:
        """Run it on the instance in this process, after its @enter methods have run once."""
        assert self.raw is not None
        if self._obj._cls.raw is None:
            return self.raw(*args, **kwargs)  # says that the code is not here
        bound = self.raw.__get__(self._obj._local())
        enters = self._obj._pending_enters()
        if any(map(inspect.iscoroutinefunction, enters)):
            if not inspect.iscoroutinefunction(self.raw):
                self._obj._entered = False
                raise InvalidError(
                    f"{self._obj._cls.name} has an async @enter, so the first .local() must be of an "
                    f"async method, and {self._method} is none"
                )
            return cast(L, _enter_and_call(enters, bound, args, kwargs))
        for enter in enters:
            enter()
        return bound(*args, **kwargs)  # type: ignore[no-any-return]  # the user's value

    def with_options(self, **options: Unpack[ClsOptions]) -> Function[P, R, L]:
        """Not for one method: all methods of an object share its containers."""
        cls = self._obj._cls.name
        raise InvalidError(f"use {cls}.with_options(…)().{self._method}: a class has one pool")

    def _require_app(self) -> None:
        self._obj._pool._require_app()

    async def _client(self) -> Client:
        return await self._obj._pool._client()

    async def _url_query(self, client: Client) -> str:
        """The values of its object's parameters, as its URL tells them."""
        cls, (args, kwargs) = self._obj._cls, self._obj._arguments
        declared = (await cls._known_shape(client)).parameters
        if declared is None:
            if args or kwargs:
                raise InvalidError(
                    f"{cls.name} has an __init__ of its own, whose arguments no URL can carry: "
                    "declare them with parameter()"
                )
            return ""
        values = parameters.bind(cls.name, declared, args, kwargs)
        return "" if parameters.are_defaults(declared, values) else parameters.to_query(values)

    async def _resolve(self, client: Client) -> str:
        shape = await self._obj._cls._known_shape(client)
        names = [name for name, _ in shape.methods]
        if self._method not in names:
            raise NotFoundError(
                f"{self._obj._cls.name} has no method {self._method!r}; it has {', '.join(names)}"
            )
        return await self._obj._pool._key(client)

    def __reduce__(self) -> Any:
        return getattr, (self._obj, self._method)


async def _enter_and_call(
    enters: list[Callable[[], Any]], bound: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    for enter in enters:
        value = enter()
        if inspect.isawaitable(value):
            await value
    return await bound(*args, **kwargs)


def decorate(app: App, given: ClsOptions) -> Callable[[type[T]], Cls[T]]:
    """What `@app.cls(**given)` does to a class. Raises InvalidError for misuse."""
    options = check("@app.cls", given)
    for name in ("schedule", "name", "is_generator"):
        if given.get(name) is not None:
            raise InvalidError(f"@app.cls has no option {name!r}; it is one of @app.function")

    def wrap(raw: type[T]) -> Cls[T]:
        if isinstance(raw, Cls):
            raise InvalidError(f"{raw.name} is decorated with @app.cls twice")
        if not inspect.isclass(raw):
            raise InvalidError(f"@app.cls() decorates a class, not {raw!r}: use @app.function()")
        kind: type[Cls[T]] = getattr(raw, KIND, Cls)
        cls = kind(raw, app, raw.__name__, options, shape=_shape(raw))
        app._register(cls, app.registered_classes)
        return cls

    return wrap


def _shape(raw: type) -> ClassShape:
    for name, value in members(raw).items():
        if inspect.isfunction(value) and hasattr(value, "__minimodal_options__"):
            method: Method[..., Any, Any] = Method(value)  # @batched alone makes a method
            setattr(raw, name, method)
            method.__set_name__(raw, name)
    methods = methods_of(raw)
    for method in methods.values():
        if "batching" in getattr(method.raw, "__minimodal_options__", {}) and len(methods) > 1:
            raise InvalidError(
                f"{raw.__name__}.{method.name} is @batched, so it must be the only method of its class"
            )
    declared = parameters.collect(raw)
    own_init = raw.__init__ is not object.__init__  # type: ignore[misc]  # read, not called
    shape = tuple((name, method.is_generator) for name, method in methods.items())
    return ClassShape(shape, None if own_init else declared)
