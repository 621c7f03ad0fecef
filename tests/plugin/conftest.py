"""A project that uses the plugin, in a directory and a pytest process of its own."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Project:
    """`project.run(tests)` writes one test file and runs pytest on it in a process of its own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def run(self, tests: str, *arguments: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_it=HEAD + textwrap.dedent(tests))
        return self.pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=50)


SETTINGS = """
[tool.pytest.ini_options]
asyncio_default_fixture_loop_scope = "function"
filterwarnings = ["error", "ignore:Unknown config option:pytest.PytestConfigWarning"]
"""

WORK = """
import os, time
import minimodal

app = minimodal.App("work")

@app.function()
def double(x):
    print(f"doubling {x}", flush=True)
    return 2 * x

@app.function(retries=1)
def steady(x):
    return x

@app.function()
def endless():
    print("begun", flush=True)
    time.sleep(600)

web = minimodal.App("web")

@web.web_endpoint("/")
def hello():
    return {"hello": "you"}
"""

HEAD = """
import json, os, pathlib, pytest, urllib.request
import minimodal
from minimodal import testing
from work import app, double, endless, hello, steady, web
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """As an installed distribution would bring it: by its entry point."""
    site = pytester.mkdir("site")
    info = site / "minimodal_plugin-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: minimodal-plugin\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[pytest11]\nminimodal = minimodal.pytest_plugin\n")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{site}")
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makepyprojecttoml(SETTINGS)
    pytester.makepyfile(work=WORK)
    return Project(pytester)
