"""Containers with each Python of this host: what the agent must run on."""

from __future__ import annotations

import sys

import pytest

import minimodal
from minimodal import Image
from minimodal.errors import BuildError, PythonMismatch
from minimodal.host import Host
from minimodal.images.host_python import find_python
from tests.core import functions as f

MINORS = ["3.10", "3.11", "3.12", "3.13"]


@pytest.fixture(autouse=True)
def _only_with_the_hosts_interpreters(running: Host) -> None:
    if running.engine.backend.name == "docker":
        pytest.skip("a Docker image brings its own Python")


@pytest.mark.parametrize("minor", MINORS)
def test_a_call_streams_and_raises_under_each_python(minor: str) -> None:
    try:
        find_python(minor)
    except BuildError as error:
        pytest.skip(str(error))
    function = f.which_python.with_options(image=Image.debian_slim(python_version=minor))
    items = iter(function.remote_gen(3))
    assert [next(items) for _ in range(3)] == [minor] * 3
    with pytest.raises(f.Custom) as caught:
        next(items)
    assert (caught.value.args, caught.value.why) == ((3,), "it is over")


def test_a_function_by_value_is_refused_by_another_python() -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    for other in MINORS:
        try:
            if other != own and find_python(other):
                break
        except BuildError:
            continue
    else:
        pytest.skip(f"this machine has no Python but {own}")
    app = minimodal.App("by-value", image=Image.debian_slim(python_version=other))
    function = app.function(serialized=True)(lambda: 1)
    with app.run(), pytest.raises(PythonMismatch) as caught:
        function.remote()
    assert f"from Python {own}, but its image has Python {other}" in str(caught.value)
    assert f"python_version={own!r}" in str(caught.value)
