"""What the decorators of an `App` give: functions, local entrypoints, and the checks of what they take."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from .errors import InvalidError
from .function import Function, endpoint_of
from .kinds import is_generator
from .options import check

if TYPE_CHECKING:
    from .app import App
    from .option_types import FunctionOptions

P = ParamSpec("P")
R = TypeVar("R")


class LocalEntrypoint(Generic[P, R]):
    """What `minimodal run script.py` starts, in this process. Calling it calls the function."""

    def __init__(self, raw: Callable[P, R], app: App, name: str) -> None:
        self.raw = raw
        self.app = app
        self.name = name
        self.__wrapped__ = raw
        self.__doc__ = raw.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.raw(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<LocalEntrypoint {self.name}>"


class FunctionDecorator:
    """Keeps the user's signature: generators become Functions of their item type."""

    def __init__(self, app: App, options: FunctionOptions) -> None:
        self._app = app
        self._options = check("@app.function", options)

    @overload
    def __call__(
        self, raw: Callable[P, Coroutine[Any, Any, R]]
    ) -> Function[P, R, Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(self, raw: Callable[P, R]) -> Function[P, R, R]: ...

    def __call__(self, raw: Any) -> Any:
        if isinstance(raw, type):
            raise TypeError(f"{raw.__name__} is a class: use @app.cls()")
        if isinstance(raw, Function) and raw._implicit:
            self._app.registered_functions.pop(raw.name, None)
            raw = raw.raw
        if isinstance(raw, Function):
            raise InvalidError(f"{raw.name} is decorated with @app.function twice")
        if not callable(raw):
            raise InvalidError(f"@app.function() decorates a function, not {raw!r}")
        options = self._options
        generator = options.is_generator
        if generator is None:
            generator = is_generator(raw)
        if generator and options.retries is not None:
            raise InvalidError(f"{raw.__name__} is a generator: retries would repeat its items")
        if options.schedule is not None:
            _require_no_arguments(raw)
        name = options.name or raw.__name__
        function: Function[..., Any, Any] = Function(
            raw, self._app, name, options, is_generator=generator
        )
        check_web(function)
        self._app._register(function, self._app.registered_functions)
        return function


def check_web(function: Function[..., Any, Any]) -> None:
    """Some options say how a call is repeated or started; a web request is neither."""
    options = function._options
    if endpoint_of(function.raw) is None:
        return
    if options.retries is not None:
        raise InvalidError(f"{function.name} is a web endpoint: a request is not retried")
    if options.schedule is not None:
        raise InvalidError(f"{function.name} is a web endpoint, so it cannot have a schedule")


def _require_no_arguments(raw: Callable[..., Any]) -> None:
    import inspect

    for parameter in inspect.signature(raw).parameters.values():
        empty = parameter.default is parameter.empty
        if empty and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise InvalidError(
                f"{raw.__name__} has a schedule, so it is called without arguments; give "
                f"{parameter.name!r} a default"
            )
