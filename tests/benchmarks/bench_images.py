"""Building an image, beside `docker build` of the equivalent Dockerfile on the same engine.

    uv run python tests/benchmarks/bench_images.py [rounds]

Cold, nothing changed, an eleventh package, one changed file: seconds, and how many times faster than
docker build. Everything is cold in the first column: no layer, no package in uv's cache. The last line is
the look-up of a cached image of ten layers. Needs the docker command, an engine with python:3.11-slim, and
a package index; packages are installed by their usual clients.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace

import anyio

from minimodal.backends import bubblewrap, docker
from minimodal.engine_lock import hold_engine_lock
from minimodal.home import Home, open_home
from minimodal.image import Image
from minimodal.images import docker_builder
from minimodal.protocols import Backend
from minimodal.types import new_id

PACKAGES = "requests rich click jinja2 pyyaml attrs fastapi httpx sqlalchemy numpy".split()
MORE = "humanize"
CASES = ("cold", "no change", "one package added", "one file changed")
TAG = "minimodal-bench"

Build = Callable[[list[str], bool], Awaitable[None]]  # packages, and whether nothing may be reused


class Project:
    """A directory of fifty small modules, one of which can be changed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = Image.debian_slim("3.11").env(BENCH=root.name)  # shares no layer with others
        self.made: set[str] = set()  # digests
        (root / "app").mkdir()
        for number in range(50):
            (root / "app" / f"module_{number}.py").write_text(f"VALUE = {number}\n" * 100)

    def change(self) -> None:
        (self.root / "app" / "module_7.py").write_text(f"VALUE = {time.time_ns()}\n")


def docker_build(project: Project) -> Build:
    """The docker command, with the index and the certificates that pip has here."""
    names = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    args = [f"--build-arg={name}={os.environ[name]}" for name in names if name in os.environ]
    bundle = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    shutil.copy(bundle, project.root / "ca.pem")

    async def build(packages: list[str], cold: bool) -> None:
        (project.root / "Dockerfile").write_text(
            "FROM python:3.11-slim\nCOPY ca.pem /etc/ssl/ca.pem\nENV PIP_CERT=/etc/ssl/ca.pem\n"
            f"RUN pip install --no-cache-dir {' '.join(packages)}\nCOPY app /app\n"
        )
        words = ["docker", "build", "-q", "-t", TAG, *args, *(["--no-cache"] if cold else [])]
        await anyio.run_process([*words, str(project.root)])

    return build


def ours(project: Project, home: Home, backend: Backend) -> Build:
    async def build(packages: list[str], cold: bool) -> None:
        image = project.base.pip_install(packages)
        spec = image.add_local_dir(project.root / "app", "/app", copy=True).spec(home)
        await backend.build(spec, lambda line: None)
        project.made.update(spec.digests()[2:])

    return build


async def measured(project: Project, build: Build, cold: bool) -> list[float]:
    """Seconds of each case."""
    times = []
    for case in CASES:
        if case == "one file changed":
            project.change()
        packages = [*PACKAGES, MORE] if case in CASES[2:] else PACKAGES
        rounds = []
        for _ in range(7 if case == "no change" else 1):
            started = time.perf_counter()
            await build(packages, cold and case == "cold")
            rounds.append(time.perf_counter() - started)
        times.append(statistics.median(rounds))
    return times


async def round_of(directory: Path) -> tuple[dict[str, list[float]], float]:
    """One column for each way to build, and the look-up of ten layers; leaves nothing behind."""
    project, home, engine = Project(directory), open_home(directory / "home"), new_id("en")
    config = SimpleNamespace(engine_id=engine)
    docker_builder.UV_CACHE = f"{TAG}-{engine}"
    columns: dict[str, list[float]] = {}
    try:
        with hold_engine_lock(home, engine):
            columns["docker build"] = await measured(project, docker_build(project), True)
            async with AsyncExitStack() as stack:
                backend = await stack.enter_async_context(docker.open_backend(home, config))
                columns["docker"] = await measured(project, ours(project, home, backend), True)
                look_up = await ten_layers(project, home, backend)
            async with bubblewrap.open_backend(home, config) as embedded:
                columns["bubblewrap"] = await measured(project, ours(project, home, embedded), True)
    finally:
        images = [TAG, *(f"minimodal/{digest}" for digest in project.made)]
        for words in (["rmi", "-f", *images], ["volume", "rm", docker_builder.UV_CACHE]):
            await anyio.run_process(["docker", *words], check=False)
    return columns, look_up


async def ten_layers(project: Project, home: Home, backend: Backend) -> float:
    image = project.base
    for number in range(9):
        image = image.run_commands(f"echo {number} > /layer-{number}")
    spec = image.spec(home)
    project.made.update(spec.digests()[2:])
    await backend.build(spec, lambda line: None)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        await backend.build(spec, lambda line: None)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="mmi-") as directory:
            found.append(anyio.run(round_of, Path(directory)))
    print(f"{'seconds':<20}{'docker build':>14}{'docker':>10}{'':>8}{'bubblewrap':>12}")
    for position, case in enumerate(CASES):
        row = {
            name: statistics.median(columns[name][position] for columns, _ in found)
            for name in found[0][0]
        }
        theirs, mine, embedded = row.values()
        print(
            f"{case:<20}{theirs:>14.3f}{mine:>10.3f}{theirs / mine:>7.1f}x"
            f"{embedded:>12.3f}{theirs / embedded:>7.1f}x"
        )
    print(f"look-up of ten cached layers: {statistics.median(t for _, t in found) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
