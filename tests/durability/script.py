"""A script that spawns durable calls and is killed before they end.

    script.py BACKEND MARKS COUNT

Prints one line of call ids, then waits to be killed. Each run of a call appends a line to MARKS, a
socket path is not needed: the process backend sees the same files.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

import minimodal

app = minimodal.App("survivor")


@app.function(max_containers=2)
def work(number: int, marks: str, gate: str) -> int:
    with open(marks, "a") as file:
        file.write(f"{number}\n")
    while number >= 2 and not os.path.exists(gate):
        time.sleep(0.01)
    return number * 10


@app.function()
def kills_the_engine(marks: str) -> None:
    """Only the process backend lets it."""
    with open(marks, "a") as file:
        file.write("killed\n")
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(os.environ["ENGINE_PID"]), 9)
    time.sleep(60)


def main() -> None:
    what, marks, gate = sys.argv[1:4]
    if what == "kill":
        lethal = kills_the_engine.with_options(env={"ENGINE_PID": str(os.getpid())})
        print(lethal.spawn(marks).object_id, flush=True)
    else:
        calls = [work.spawn(i, marks, gate) for i in range(6)]
        assert calls[0].get() == 0
        assert calls[1].get() == 10
        print(*(call.object_id for call in calls), flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
