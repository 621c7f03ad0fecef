"""Failpoints: every declared name is passed somewhere, every passed name is declared."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import minimodal
from minimodal import failpoints
from minimodal.errors import InvalidError
from minimodal.failpoints import FailpointError, armed, failpoint

SOURCES = Path(minimodal.__file__).parent


def used() -> set[str]:
    names: set[str] = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name("failpoint"), args=[ast.Constant(str(name))]):
                    names.add(name)
    return names


def test_the_declared_names_are_the_used_ones() -> None:
    assert used() == set(failpoints.NAMES)
    assert len(failpoints.NAMES) == len(set(failpoints.NAMES))


def test_off_means_nothing_happens() -> None:
    name = "not even declared"
    failpoint(name)  # the check costs time, so it is made only while armed
    with armed("store.open=raise"), pytest.raises(InvalidError, match="not declared"):
        failpoint(name)


def test_raise_with_words_at_the_nth_pass() -> None:
    with armed("store.open=raise:disk I/O error@2"):
        failpoint("store.open")
        with pytest.raises(FailpointError, match="disk I/O error"):
            failpoint("store.open")
        failpoint("store.open")
        failpoint("store.close")


def test_a_star_counts_every_point() -> None:
    with armed("*=raise@2"):
        failpoint("store.open")
        with pytest.raises(FailpointError, match=r"failpoint store\.close"):
            failpoint("store.close")


@pytest.mark.parametrize(
    "text", ["nope=kill", "store.open", "store.open=burn", "store.open=kill@x"]
)
def test_a_mistyped_setting_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="MINIMODAL_FAILPOINTS"), armed(text):
        pass


def test_an_undeclared_name_is_refused_while_armed() -> None:
    with armed("store.open=kill"), pytest.raises(InvalidError, match="not declared"):
        failpoint("other")


def test_kill_from_the_environment() -> None:
    code = "from minimodal.failpoints import failpoint; failpoint('store.open')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"MINIMODAL_FAILPOINTS": "store.open=kill"}, check=False
    )
    assert done.returncode == -9
