"""What a test may leave behind, compared before and after it: threads, processes, containers, files."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from minimodal.leaks import children
from tests.needs import docker_json

PATIENCE = 20.0  # seconds for what is on its way out: a thread being joined, a container in removal


@dataclass(frozen=True)
class Leftovers:
    threads: frozenset[threading.Thread]
    processes: frozenset[str]
    containers: frozenset[str]
    files: frozenset[str]

    @classmethod
    def now(cls, docker: bool) -> Leftovers:
        return cls(
            frozenset(thread for thread in threading.enumerate() if thread.is_alive()),
            frozenset(children()),
            frozenset(containers()) if docker else frozenset(),
            frozenset(each for each in os.listdir(tempfile.gettempdir()) if not is_pytests(each)),
        )

    def left_behind(self, docker: bool) -> list[str]:
        """What is there now and was not before, after waiting for it to go."""
        deadline = time.monotonic() + PATIENCE
        while (left := self._more(Leftovers.now(docker))) and time.monotonic() < deadline:
            time.sleep(0.02)  # nobody tells us when a foreign process ends
        return left

    def _more(self, after: Leftovers) -> list[str]:
        return [
            *(f"thread {thread.name}" for thread in after.threads - self.threads),
            *(f"process {process}" for process in sorted(after.processes - self.processes)),
            *(f"container {container}" for container in sorted(after.containers - self.containers)),
            *(f"temporary file {name}" for name in sorted(after.files - self.files)),
        ]


@contextmanager
def nothing_left(docker: bool, by: str = "this module") -> Iterator[None]:
    """Fail where the block leaves something behind; with `docker` containers count too."""
    before = Leftovers.now(docker)
    yield
    left = before.left_behind(docker)
    assert not left, f"left behind by {by}:\n" + "\n".join(left)


def is_pytests(name: str) -> bool:
    return name.startswith("pytest-of-")


def adopt_orphans() -> None:
    """Make orphaned descendants our children, so that a daemon cannot hide from `children`."""
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1, 0, 0, 0)


def containers() -> list[str]:
    """The containers of engines whose home lies in this session's scratch directory."""
    try:
        answer = docker_json('/containers/json?all=1&filters={"label":["minimodal.home"]}')
    except OSError:
        return []
    scratch = os.path.dirname(os.environ.get("MINIMODAL_HOME", "/nowhere"))
    return [
        f"{each['Id'][:12]} {each['State']}"
        for each in answer
        if each["Labels"]["minimodal.home"].startswith(scratch)
    ]
