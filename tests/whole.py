"""How the whole suite runs, when it is not some of its files or tests that were named.

In several processes, a file in one of them; what a busy machine made fail is tried again, and said.
To take minutes and not a quarter of an hour it leaves two things for `pytest --rest`, which `.ci/run`
runs too: what is marked `long`, and the other backends. A test of what the platform does,
whatever runs the containers, takes its turn on one kind of container; how a call gets through each of
them has tests that always run (`EACH`). `pytest --all` leaves nothing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import missing_bubblewrap, missing_docker

TESTS = Path(__file__).parent
EACH = ("backends/", "core/test_calling")
BACKENDS = ("docker", "bubblewrap", "process")
RERUNS = 2


def is_whole(config: pytest.Config) -> bool:
    """Whether this run is of the whole suite: by the command's arguments, also in a worker of xdist."""
    return [(config.rootpath / each).resolve() for each in config.args] == [TESTS]


def workers(config: pytest.Config) -> int:
    """How many processes `-n auto` means: one more than cores, as most tests wait for a container."""
    return (os.cpu_count() or 1) + 1 if is_whole(config) else 0


def left_for_the_rest(items: list[pytest.Item]) -> set[pytest.Item]:
    return {*(each for each in items if each.get_closest_marker("long")), *_not_their_turn(items)}


def _not_their_turn(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    tests: dict[tuple[str, str], dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        place = item.path.relative_to(TESTS).as_posix()
        backend = _backend_of(item)
        if backend and not place.startswith(EACH):
            tests[place, item.name.replace(backend, "…", 1)][backend] = item
    containers = _containers()
    for turn, on in enumerate(tests.values()):
        possible = [name for name in containers if name in on] or [*on]
        chosen = possible[turn % len(possible)]
        yield from (item for name, item in on.items() if name != chosen)


def _containers() -> list[str]:
    """The kinds of containers that work here."""
    required = os.environ.get("MINIMODAL_REQUIRE_DOCKER") == "1"
    docker = ["docker"] if required or not missing_docker() else []
    return docker + ([] if missing_bubblewrap() else ["bubblewrap"])


def _backend_of(item: pytest.Item) -> str | None:
    """The backend that it is parametrized with."""
    callspec = getattr(item, "callspec", None)
    values = callspec.params.values() if callspec else ()
    return next((each for each in values if isinstance(each, str) and each in BACKENDS), None)
