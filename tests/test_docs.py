"""Each public name has a docstring that names its parameters; without one a user reads the source."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import minimodal
from minimodal import errors
from minimodal.errors import Error
from minimodal.face import Both, both

MODULES = ("minimodal", "minimodal.testing", "minimodal.runner", "minimodal.errors")
MODALS = {
    "ignored",
    "environment_name",
    "client",
    "version",
    "custom_domains",
}  # compat.py's docstring has them
FIXTURES = [
    f"minimodal_{name}" for name in ("engine", "session_engine", "app", "gateway", "clock", "logs")
]


def unwrapped(value: Any) -> Any:
    """The plain function behind a descriptor of ours or Python's."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, Both | both):
        value = value._function
    if isinstance(value, functools.cached_property):
        value = value.func
    return value.fget if isinstance(value, property) else value


def public() -> Iterator[tuple[str, Any, type | None]]:
    """Name, object and class of everything that a user can name."""
    for module in MODULES:
        names = importlib.import_module(module)
        for name in getattr(names, "__all__", vars(names)):
            thing = getattr(names, name)
            ours = getattr(thing, "__module__", "minimodal").startswith("minimodal")
            if name.startswith("_") or not ours or inspect.ismodule(thing):
                continue
            if inspect.isclass(thing) or callable(unwrapped(thing)):
                yield f"{module}.{name}", thing, None
            if inspect.isclass(thing) and not issubclass(thing, Error):
                for member, value in vars(thing).items():
                    if not member.startswith("_") and callable(unwrapped(value)):
                        yield f"{module}.{name}.{member}", value, thing


PUBLIC = {name: (thing, owner) for name, thing, owner in public()}


def doc_of(thing: Any) -> str:
    return inspect.getdoc(unwrapped(thing)) or ""


def test_each_public_name_has_a_docstring() -> None:
    assert [name for name, (thing, _) in PUBLIC.items() if len(doc_of(thing)) < 8] == []


def documented(thing: Any, owner: type | None) -> str:
    """Its docstring, with its class's, and with those of the names that it refers to."""
    text = doc_of(thing) + (doc_of(owner) if owner else "")
    for name in re.findall(r"`(?:@|\w+\.)*(\w+)(?:\(.*?\))?`", text):
        other = getattr(owner, name, None) if owner else None
        text += doc_of(getattr(minimodal, name, other) if hasattr(minimodal, name) else other)
    return text


def parameters_of(thing: Any) -> list[str]:
    raw = unwrapped(thing)
    names = [name for name in inspect.signature(raw).parameters if not name.startswith("_")]
    return [name for name in names if name not in MODALS | {"self", "cls", "args", "kwargs"}]


def test_each_parameter_is_named_where_there_are_several() -> None:
    """A lone one is what the sentence is about."""
    missing = {}
    for name, (thing, owner) in PUBLIC.items():
        if inspect.isclass(thing):
            made = "Made by" in doc_of(thing) or "make handles" in doc_of(thing)
            if made or issubclass(thing, BaseException) or "__init__" not in vars(thing):
                continue
        parameters = parameters_of(thing)
        text = documented(thing, owner)
        unnamed = [each for each in parameters if not re.search(rf"\b{each}\b", text)]
        if unnamed and len(parameters) > 1:
            missing[name] = unnamed
    assert missing == {}


def raised_by(thing: Any) -> set[str]:
    """The errors of ours that stand behind `raise` in its body."""
    raw = unwrapped(thing)
    made_by = ("__init__", "__post_init__")
    bodies = [vars(raw).get(name) for name in made_by] if inspect.isclass(raw) else [raw]
    found = set()
    for body in bodies:
        if not inspect.isfunction(body) or body.__code__.co_filename == "<string>":
            continue  # a dataclass's
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(body)))):
            raised = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(raised, ast.Call):
                raised = raised.func
            if isinstance(raised, ast.Name) and hasattr(errors, raised.id):
                found.add(raised.id)
    return found


def test_each_error_that_is_raised_is_named() -> None:
    missing = {}
    for name, (thing, owner) in PUBLIC.items():
        unnamed = sorted(each for each in raised_by(thing) if each not in documented(thing, owner))
        if unnamed:
            missing[name] = unnamed
    assert missing == {}


UNITS = {
    r"(.*_)?(timeout|seconds|window|delay|interval|within|period)": "second",
    r".*_ms": "millisecond",
    r"memory": "MiB",
    r"cpu": "cores",
    r"size|(.*_)?bytes": "bytes",
}


def test_each_quantity_has_its_unit() -> None:
    missing = {}
    for name, (thing, owner) in PUBLIC.items():
        if inspect.isclass(thing) and "__init__" not in vars(thing):
            continue
        text = documented(thing, owner)
        unnamed = [
            each
            for each in parameters_of(thing)
            for pattern, unit in UNITS.items()
            if re.fullmatch(pattern, each) and unit not in text
        ]
        if unnamed:
            missing[name] = unnamed
    assert missing == {}


def test_help_shows_the_docstring_of_what_blocks_and_can_be_awaited() -> None:
    assert (inspect.getdoc(minimodal.Sandbox.create) or "").startswith("Start a sandbox")
    assert (inspect.getdoc(minimodal.Dict.from_name("x").put) or "").startswith("Set ")


def test_all_is_sorted_complete_and_importable() -> None:
    names = [name for name in minimodal.__all__ if name != "__version__"]
    assert names == sorted(names)
    assert set(dir(minimodal)) == set(minimodal.__all__)
    for name in names:
        assert getattr(minimodal, name) is not None


@pytest.mark.parametrize("name", FIXTURES)
def test_each_fixture_is_explained(name: str) -> None:
    plugin = importlib.import_module("minimodal.pytest_plugin")
    assert len(inspect.getdoc(getattr(plugin, name)) or "") > 20
