"""`WebRequest` and `WebResponse` of `@app.web_endpoint`, and the way from one to the other.

Pure: how a request's parts become a function's arguments, and what it returned becomes a response.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from .errors import Error
from .types import WebEndpoint

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


@dataclass(frozen=True)
class WebRequest:
    """One request, read whole: `method`, `path`, `path_params`, `query`, `query_string`, `body`.

    Names of headers are in lower case.
    """

    method: str
    path: str
    path_params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)  # of several values the last
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    query_string: str = ""
    client: str = ""  # address

    @property
    def text(self) -> str:
        """The body as UTF-8 text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError where it is none."""
        return json.loads(self.body)

    def query_list(self, name: str) -> list[str]:
        """All values of the query parameter `name`."""
        pairs = parse_qsl(self.query_string, keep_blank_values=True)
        return [value for key, value in pairs if key == name]


@dataclass(frozen=True)
class WebResponse:
    """What a function answers where a plain value says too little.

    `status`: the number, 200 by default. `headers`: more of them. `body`: text, bytes, or anything that
    JSON can hold. `content_type` is guessed if not given.
    """

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None


class BadRequest(Error):
    """The request does not fit the function's parameters; `details` says where."""

    def __init__(self, details: list[dict[str, Any]]) -> None:
        super().__init__("; ".join(f"{each['name']}: {each['problem']}" for each in details))
        self.details = details


def arguments(function: Callable[..., Any], request: WebRequest) -> dict[str, Any]:
    """The function's arguments out of the request's parts. Raises BadRequest naming all that is wrong.

    A name is looked for in the path, the query, and the fields of a JSON body, in this order;
    `body` that is found nowhere is the whole JSON body.
    """
    body = _json_body(request)
    found: dict[str, Any] = {}
    problems: list[dict[str, Any]] = []
    for name, parameter, kind in _parameters(function):
        try:
            found[name] = _argument(name, kind, request, body)
        except KeyError:
            if parameter.default is parameter.empty:
                problems.append({"name": name, "problem": "is required"})
        except ValueError as error:
            problems.append({"name": name, "problem": str(error)})
    if problems:
        raise BadRequest(problems)
    return found


def response_of(value: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of what a function returned. Raises TypeError for what can't be sent."""
    match value:
        case WebResponse():
            response = value
        case (body, int() as status) if not isinstance(status, bool):
            response = WebResponse(body, status)
        case (body, int() as status, Mapping() as more) if not isinstance(status, bool):
            response = WebResponse(body, status, more)
        case _:
            response = WebResponse(value)
    body, kind = _encoded(response.body)
    headers = [
        (k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in response.headers.items()
    ]
    names = {name for name, _ in headers}
    if b"content-type" not in names and (body or response.content_type):
        headers.append((b"content-type", (response.content_type or kind).encode("latin-1")))
    if b"content-length" not in names and response.status not in (204, 304):
        headers.append((b"content-length", str(len(body)).encode()))
    return response.status, headers, body


def problem(status: int, details: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """A refusal as JSON."""
    return response_of(WebResponse({"detail": details}, status))


def method_allowed(endpoint: WebEndpoint, method: str) -> bool:
    return method == endpoint.method or (method == "HEAD" and endpoint.method == "GET")


def _parameters(function: Callable[..., Any]) -> list[tuple[str, inspect.Parameter, Any]]:
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # an annotation that only a type checker understands
        hints = {}
    taken = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [
        (name, parameter, hints.get(name, Any))
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in taken
    ]


def _argument(name: str, kind: Any, request: WebRequest, body: Any) -> Any:
    if kind is WebRequest or (kind is Any and name == "request"):
        return request
    if name in request.path_params:
        return convert(request.path_params[name], kind)
    if typing.get_origin(kind) is list:
        values = request.query_list(name)
        if values:
            return [convert(value, *typing.get_args(kind)) for value in values]
    elif name in request.query:
        return convert(request.query[name], kind)
    if isinstance(body, Mapping) and name in body:
        return convert(body[name], kind)
    if name == "body" and request.body:
        return body
    raise KeyError(name)


def convert(value: Any, kind: Any = Any) -> Any:
    """A value as its annotation wants it. Raises ValueError with what was wanted."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        options = [each for each in typing.get_args(kind) if each is not type(None)]
        if value is None:
            return None
        kind = options[0] if len(options) == 1 else Any
    if not isinstance(kind, type) or kind is object or (isinstance(value, bool) and kind is bool):
        return value
    try:
        if kind is bool and isinstance(value, str):
            return _truth(value)
        if isinstance(value, bool) and kind in (int, float):
            raise ValueError
        if kind in (int, float) and isinstance(value, (str, int, float)):
            if kind is int and isinstance(value, float) and not value.is_integer():
                raise ValueError
            return kind(value)
        if issubclass(kind, enum.Enum):
            return kind(value)
        if kind is str and not isinstance(value, str):
            raise ValueError
    except ValueError:
        raise ValueError(f"must be of type {kind.__name__}, not {value!r:.60}") from None
    return value


def _truth(text: str) -> bool:
    lower = text.lower()
    if lower in _TRUE:
        return True
    if lower in _FALSE:
        return False
    raise ValueError


def _json_body(request: WebRequest) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        return dict(parse_qsl(request.text, keep_blank_values=True))
    if not request.body or not (kind in ("", "application/json") or kind.endswith("+json")):
        return None
    try:
        return request.json()
    except (ValueError, RecursionError):
        if kind:
            raise BadRequest([{"name": "body", "problem": "is not JSON"}]) from None
        return None


def _encoded(body: Any) -> tuple[bytes, str]:
    match body:
        case bytes() | bytearray() | memoryview():
            return bytes(body), "application/octet-stream"
        case str():
            start = body[:64].lstrip().lower()
            page = start.startswith(("<!doctype html", "<html"))
            return body.encode(), f"text/{'html' if page else 'plain'}; charset=utf-8"
        case _:
            text = json.dumps(body, default=_plain, ensure_ascii=False, allow_nan=False)
            return text.encode(), "application/json"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(
        f"a {type(value).__name__} cannot be sent as JSON; return text, bytes or a dict"
    )
