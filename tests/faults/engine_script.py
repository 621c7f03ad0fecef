"""An engine in a process of its own, for tests that hurt it. `engine_script.py MODE [ARGUMENT …]`

What it says is one word or JSON list a line. It leaves by stdin's end where it does not by itself.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import minimodal
from minimodal.host import Host

app = minimodal.App("hurt")


def say(*words: object) -> None:
    print(json.dumps(words), flush=True)


@app.function(max_containers=4)
def work(seconds: float, marks: str = "") -> str:
    if marks:
        with open(marks, "a") as file:
            file.write(f"{minimodal.current_function_call_id()}\n")
    time.sleep(seconds)
    return "done"


@app.function(timeout=2, startup_timeout=30)
def bounded(seconds: float) -> str:
    time.sleep(seconds)
    return "done"


@app.function()
def endless() -> object:
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.01)


@app.function(startup_timeout=60)
def hangs_at_start() -> None: ...


if os.environ.get("HANG") == "import" and not minimodal.is_local():
    time.sleep(600)


def serve(marks: str = "") -> None:
    """Two calls that run on, then wait for the end of stdin."""
    with Host(), app.run():
        calls = [work.spawn(600, marks) for _ in range(2)]
        work.with_options(env={"WARM": "1"}).remote(0)
        say(os.getpid(), *(call.object_id for call in calls))
        sys.stdin.read()


def freeze() -> None:
    """A call that is in time, though the engine stands still beyond its timeout."""
    with Host(), app.run():
        bounded.remote(0)
        call = bounded.spawn(0.5)
        say("running")
        say(call.get(timeout=20), bounded.remote(0))


def _until_works(call: Callable[[], str]) -> float:
    """Seconds until a call that needs a new container ends well; refusals are tried again."""
    started = time.monotonic()
    while True:
        try:
            call()
            return time.monotonic() - started
        except minimodal.Error:
            time.sleep(0.1)


def _scarce(take: Callable[[], Callable[[], object]]) -> None:
    """`take()` takes what there is of something, and gives what lifts that again."""
    with Host(), app.run():
        say("warm", work.remote(0))
        cold = work.with_options(env={"COLD": "1"})
        lift = take()
        try:
            meanwhile = cold.spawn(0).get(timeout=3)
        except (minimodal.Error, TimeoutError, OSError) as error:
            meanwhile = f"{type(error).__name__}: {error}"
        lift()
        say(meanwhile, _until_works(lambda: cold.remote(0)))
        say("lifted", work.remote(0))
        sys.stdin.read()


def descriptors() -> None:
    """No descriptor is free for a while."""

    def take() -> Callable[[], None]:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 10, limit[1]))
        files = []
        try:
            while True:
                files.append(open(os.devnull))
        except OSError:
            pass

        def lift() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            for file in files:
                file.close()

        return lift

    _scarce(take)


def processes(group: str) -> None:
    """No process may be started for a while."""
    limit = Path(group) / "pids.max"
    (limit.parent / "cgroup.procs").write_text(str(os.getpid()))

    def take() -> Callable[[], None]:
        limit.write_text("1")
        return lambda: limit.write_text("max")

    _scarce(take)


def crash() -> None:
    """A callback of ours raises."""
    with Host() as host, app.run():
        work.remote(0)
        spawned = work.spawn(600)
        say(spawned.object_id)
        host.loop.call_soon_threadsafe(lambda: 1 / 0)
        started = time.monotonic()
        try:
            work.remote(600)
        except minimodal.Error as error:
            say(type(error).__name__, str(error), time.monotonic() - started)
        sys.stdin.read()


def unlocked() -> None:
    """Our lock file disappears."""
    with Host() as host, app.run():
        work.remote(0)
        say(host.engine.id)
        try:
            work.remote(600)
        except minimodal.Error as error:
            say(type(error).__name__, str(error))


def phase(name: str) -> None:
    """Be in one phase of a run until a signal ends it."""
    with Host() as host:
        say("starting")
        with app.run():
            if name == "running":
                work.remote(0)
                say("there")
                work.remote(600)
            elif name == "starting":
                host.loop.call_soon_threadsafe(
                    host.engine.events.subscribe,
                    lambda event: say("there") if event.kind == "container.starting" else None,
                )
                hangs_at_start.with_options(env={"HANG": "import"}).remote()
            elif name == "streaming":
                for item in endless.remote_gen():
                    if item == 3:
                        say("there")
            elif name == "mapping":
                for _ in work.map([0.0] + [0.2] * 400):
                    say("there")


def main() -> None:
    mode, *arguments = sys.argv[1:]
    modes = (serve, freeze, crash, unlocked, phase, descriptors, processes)
    run = {each.__name__: each for each in modes}[mode]
    run(*arguments)  # type: ignore[operator]  # each takes its own


if __name__ == "__main__":
    main()
