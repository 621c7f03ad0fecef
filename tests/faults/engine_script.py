"""An engine in a process of its own, for tests that hurt it. `engine_script.py MODE [ARGUMENT …]`

What it says is one word or JSON list a line. It leaves by stdin's end where it does not by itself.
"""

from __future__ import annotations

import json
import os
import sys
import time

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


@app.function(timeout=2)
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
    {"serve": serve, "freeze": freeze, "crash": crash, "unlocked": unlocked, "phase": phase}[mode](
        *arguments
    )


if __name__ == "__main__":
    main()
