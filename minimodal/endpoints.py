"""What makes a function answer HTTP: the web decorators, their checks, labels and paths.

A decorator leaves its data on the function (`__minimodal_options__`, as policy.py's do), so its order
among the others is free. How a request is answered in the container is agent/web.py's; which URL
leads to which function is the gateway's.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .errors import InvalidError
from .types import WebEndpoint

F = TypeVar("F", bound="Callable[..., Any]")

OPTIONS = "__minimodal_options__"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
MAX_LABEL = 63  # of one part of a host name

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(:path)?\}")


def fastapi_endpoint(
    _wrong: object = None,
    /,
    *,
    method: str = "GET",
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    docs: bool = False,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """Answer one HTTP `method` at `/` with this function; FastAPI reads its parameters.

    FastAPI must be in the function's image. Parameters: `label` of the URL, `docs=True` for /docs
    and /openapi.json, `requires_proxy_auth=True` to answer 401 without a token of the platform;
    `custom_domains` is Modal's, and without effect.
    Raises InvalidError for a wrong option or a function that cannot work.
    """
    _parentheses("fastapi_endpoint", _wrong)
    del custom_domains  # one machine has no domains of its own
    checked = _method("@fastapi_endpoint", method)
    return _decorator(
        "@fastapi_endpoint",
        WebEndpoint(
            "fastapi",
            _label("@fastapi_endpoint", label),
            method=checked,
            docs=docs,
            requires_auth=requires_proxy_auth,
        ),
    )


def web_endpoint(_wrong: object = None, /, **options: Any) -> Callable[[F], F]:
    """The old name of `fastapi_endpoint`. Warns; `@app.web_endpoint` is something else."""
    _parentheses("web_endpoint", _wrong)
    warnings.warn(
        "@web_endpoint is the old name of @fastapi_endpoint", DeprecationWarning, stacklevel=2
    )
    return fastapi_endpoint(**options)


def asgi_app(
    _wrong: object = None,
    /,
    *,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """The function returns an ASGI app (FastAPI, Starlette, …), made once in each container.

    Its lifespan is honoured; a startup that fails is a start failure of the container. The function
    takes no arguments and is not async; InvalidError otherwise. The options are as in
    `fastapi_endpoint`.
    """
    _parentheses("asgi_app", _wrong)
    del custom_domains
    return _factory("asgi", "@asgi_app", label, requires_proxy_auth)


def wsgi_app(
    _wrong: object = None,
    /,
    *,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """The function returns a WSGI app (Flask, Django, …), made once in each container.

    Requests run in threads, as many as `@concurrent` allows. Raises InvalidError for a function
    that takes arguments or is async. The options are as in `fastapi_endpoint`.
    """
    _parentheses("wsgi_app", _wrong)
    del custom_domains
    return _factory("wsgi", "@wsgi_app", label, requires_proxy_auth)


def web_server(
    port: int,
    *,
    startup_timeout: float = 5.0,
    label: str | None = None,
    custom_domains: Sequence[str] | None = None,
    requires_proxy_auth: bool = False,
) -> Callable[[F], F]:
    """The function starts a web server on `port` and returns; requests are passed on to it.

    The container counts as started when the port accepts connections, at most `startup_timeout`
    seconds after the function has returned. Raises InvalidError for a wrong port. The other options
    are as in `fastapi_endpoint`.
    """
    del custom_domains
    what = "@web_server"
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise InvalidError(f"{what}: port must be a number from 1 to 65535, not {port!r}")
    if not startup_timeout > 0:
        raise InvalidError(f"{what}: startup_timeout must be above 0, not {startup_timeout!r}")
    endpoint = WebEndpoint(
        "server",
        _label(what, label),
        requires_auth=requires_proxy_auth,
        port=port,
        startup_timeout=float(startup_timeout),
    )
    return _decorator(what, endpoint, nullary=True)


def simple_endpoint(path: str, method: str, label: str | None, auth: bool) -> WebEndpoint:
    """What `@app.web_endpoint(path=…, method=…)` means. Raises InvalidError."""
    what = "@app.web_endpoint"
    if not isinstance(path, str) or not path.startswith("/"):
        raise InvalidError(f'{what}: path must start with "/", such as "/users/{{id}}": {path!r}')
    if "{" in _PLACE.sub("", path) or "}" in _PLACE.sub("", path):
        raise InvalidError(f"{what}: {path!r} has a brace that belongs to no {{name}}")
    names = [name for name, _ in _PLACE.findall(path)]
    if len(set(names)) != len(names):
        raise InvalidError(f"{what}: {path!r} has one name twice")
    return WebEndpoint(
        "simple", _label(what, label), path, _method(what, method), requires_auth=auth
    )


def mark(function: Callable[..., Any], endpoint: WebEndpoint, what: str) -> None:
    """Put the endpoint's data on a function. Raises InvalidError where it cannot be one."""
    if not inspect.isfunction(function):
        kind = "a class: put it on one of its methods" if inspect.isclass(function) else ""
        raise InvalidError(
            f"{what} on {kind or repr(function)}"
            f"{'' if kind else ': it goes directly above the function, below @app.function()'}"
        )
    name = function.__qualname__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidError(f"{what}: {name} is a generator; return a streaming response instead")
    options = getattr(function, OPTIONS, {})
    if "web" in options:
        raise InvalidError(f"{what}: {name} is a web endpoint already")
    if "batching" in options:
        raise InvalidError(f"{what}: {name} is @batched, and a web endpoint cannot be")
    setattr(function, OPTIONS, {**options, "web": endpoint})


def labelled(endpoint: WebEndpoint, *names: str) -> WebEndpoint:
    """The endpoint with its label, made of the app's and the function's names if it has none.

    Simple endpoints of one app share a label: their paths tell them apart.
    """
    if endpoint.label:
        return endpoint
    return endpoint._replace(label=slug(names[0] if endpoint.kind == "simple" else "-".join(names)))


def slug(text: str) -> str:
    """A text as a part of a host name."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return plain[:MAX_LABEL].strip("-") or "app"


def match_path(pattern: str, path: str) -> dict[str, str] | None:
    """The named parts of `path`, or None where it does not fit. `{name:path}` takes slashes too."""
    found = _pattern(pattern).fullmatch(path)
    return None if found is None else found.groupdict()


def _pattern(pattern: str) -> re.Pattern[str]:
    text, at = "", 0
    for place in _PLACE.finditer(pattern):
        text += re.escape(pattern[at : place.start()])
        text += f"(?P<{place[1]}>{'.*' if place[2] else '[^/]+'})"
        at = place.end()
    return re.compile(text + re.escape(pattern[at:]))


def _factory(kind: str, what: str, label: str | None, auth: bool) -> Callable[[F], F]:
    endpoint = WebEndpoint(kind, _label(what, label), requires_auth=auth)
    return _decorator(what, endpoint, nullary=True, plain=True)


def _decorator(
    what: str, endpoint: WebEndpoint, nullary: bool = False, plain: bool = False
) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        mark(function, endpoint, what)
        name = function.__qualname__
        if plain and inspect.iscoroutinefunction(function):
            raise InvalidError(f"{what}: {name} is async; it must return the app, not await it")
        if nullary:
            _require_no_arguments(what, function)
        return function

    return decorate


def _require_no_arguments(what: str, function: Callable[..., Any]) -> None:
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        del parameters[0]
    for each in parameters:
        optional = each.default is not each.empty
        if not optional and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise InvalidError(
                f"{what}: {function.__qualname__} is called without arguments, and {each.name!r} "
                "needs one. Parameters of a class are declared with parameter()"
            )


def _parentheses(name: str, given: object) -> None:
    if given is not None:
        raise InvalidError(f"@{name} takes named arguments only: write @{name}()")


def _label(what: str, label: str | None) -> str:
    if label is None:
        return ""
    if not isinstance(label, str) or len(label) > MAX_LABEL or not _LABEL.fullmatch(label):
        raise InvalidError(
            f"{what}: label must be lower-case letters, digits and dashes, at most {MAX_LABEL}, "
            f"not {label!r}"
        )
    return label


def _method(what: str, method: str) -> str:
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise InvalidError(f"{what}: method must be one of {', '.join(METHODS)}, not {method!r}")
    return method.upper()
