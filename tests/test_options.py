"""Wrong options are refused where they are written, by name, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import minimodal
from minimodal.errors import Error
from minimodal.function import endpoint_of

BAD: list[tuple[dict[str, Any], str]] = [
    ({"memory": -1}, "memory must be at least 1, not -1"),
    ({"memory": 0.5}, "memory must be"),
    ({"memory": "1G"}, "memory must be a number, not '1G'"),
    ({"memory": (512, 256)}, "the request 512 is more than the limit 256"),
    ({"memory": (1, 2, 3)}, r"a pair \(request, limit\)"),
    ({"cpu": 0}, "cpu must be at least 0.01, not 0"),
    ({"cpu": True}, "cpu must be a number, not True"),
    ({"timeout": 0}, "timeout must be at least 1"),
    ({"timeout": 10**9}, "at most 86400"),
    ({"timeuot": 3}, "Did you mean 'timeout'"),
    ({"nonsense": 3}, "has no option 'nonsense'"),
    ({"image": "python:3.11"}, "image must be an Image"),
    ({"secrets": "token"}, "secrets must be a list of Secret"),
    ({"env": ["A"]}, "env must be a dict of strings"),
    ({"env": {"A": 1}}, "'A' must be a string with a string value"),
    ({"env": {"A=B": "1"}}, "not a name that an environment can hold"),
    ({"volumes": {"data": None}}, "must be an absolute path"),
    ({"volumes": {"/": None}}, "must be an absolute path other than /"),
    ({"retries": -1}, "retries"),
    ({"max_containers": 0}, "max_containers must be at least 1"),
    ({"min_containers": 3, "max_containers": 2}, "min_containers=3 is more than"),
    ({"scaledown_window": 0}, "scaledown_window must be at least 1"),
    ({"schedule": "daily"}, "schedule must be a Cron or a Period"),
    ({"name": ""}, "name must be a text"),
    ({"gpu": 3}, "gpu must be a text"),
]


@pytest.mark.parametrize(("options", "words"), BAD, ids=lambda each: str(each)[:30])
def test_a_wrong_option(options: dict[str, Any], words: str) -> None:
    app = minimodal.App("options")
    with pytest.raises(Error, match=words) as caught:
        app.function(**options)(lambda: None)
    assert "@app.function" in str(caught.value) or "retries" in str(caught.value) or "min_" in words
    assert app.registered_functions == {}


def test_missing_parentheses_and_wrong_things_to_decorate() -> None:
    app = minimodal.App("options")
    with pytest.raises(Error, match=r"write @app.function\(\)"):
        app.function(lambda: None)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"use @app.cls\(\)"):
        app.function()(dict)
    with pytest.raises(Error, match="decorates a function, not 3"):
        app.function()(3)  # type: ignore[call-overload]
    with pytest.raises(Error, match="twice"):
        app.function()(app.function()(lambda: None))


def gives_an_app(x: int) -> None: ...


async def waits() -> None: ...


def yields() -> Iterator[int]:
    yield 1


BAD_ENDPOINTS: list[tuple[Callable[[], object], str]] = [
    (lambda: minimodal.asgi_app(waits), r"write @asgi_app\(\)"),
    (lambda: minimodal.asgi_app()(gives_an_app), "called without arguments, and 'x' needs one"),
    (lambda: minimodal.wsgi_app()(waits), "is async; it must return the app"),
    (lambda: minimodal.fastapi_endpoint()(yields), "return a streaming response instead"),
    (lambda: minimodal.fastapi_endpoint()(dict), "put it on one of its methods"),
    (lambda: minimodal.fastapi_endpoint(method="LOOK"), "method must be one of GET, HEAD"),
    (lambda: minimodal.fastapi_endpoint(label="No Spaces"), "label must be lower-case letters"),
    (lambda: minimodal.web_server(0), "port must be a number from 1 to 65535, not 0"),
    (lambda: minimodal.web_server(80, startup_timeout=0), "startup_timeout must be above 0"),
    (lambda: minimodal.App("web").web_endpoint("users"), 'path must start with "/"'),
    (lambda: minimodal.App("web").web_endpoint("/{a}/{a}"), "has one name twice"),
    (lambda: minimodal.App("web").web_endpoint("/{a b}"), "brace that belongs to no"),
]


@pytest.mark.parametrize(
    ("make", "words"), BAD_ENDPOINTS, ids=[words for _, words in BAD_ENDPOINTS]
)
def test_a_wrong_endpoint(make: Callable[[], object], words: str) -> None:
    with pytest.raises(Error, match=words):
        make()


def test_the_old_name_of_fastapi_endpoint_warns() -> None:
    with pytest.warns(DeprecationWarning, match="is the old name of @fastapi_endpoint"):
        old = minimodal.web_endpoint(method="post", label="old")(lambda item: item)
    new = minimodal.fastapi_endpoint(method="post", label="old")(lambda item: item)
    assert endpoint_of(old) == endpoint_of(new)
