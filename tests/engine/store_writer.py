"""A process that uses the store and says on stdout what was acknowledged; killed by its tests.

`python store_writer.py HOME ENGINE DURABILITY CALLS TASKS`: each task accepts, starts and records
calls one after the other. One line for each acknowledgement: `accept ID`, `record ID VALUE`.
"""

from __future__ import annotations

import os
import sys

import anyio

from minimodal.engine.store import Store, open_store
from minimodal.home import open_home
from minimodal.types import Call, CallState, Outcome, Payload

LARGE = (b"L" * 300_000,)


def say(*words: str) -> None:
    os.write(1, (" ".join(words) + "\n").encode())


async def work(store: Store, task: int, count: int) -> None:
    for number in range(count):
        id = f"{store.engine}-{task}-{number:05}"
        large = LARGE if number % 4 == 1 else ()
        await store.accept([Call(id, "app/f", Payload(id.encode(), large), durable=True)])
        say("accept", id)
        await store.attempt_started(id, 1)
        if number % 3 == 2:
            continue  # stays running
        value = os.urandom(4).hex()
        if await store.record(id, 1, Outcome(CallState.OK, Payload(value.encode(), large))):
            say("record", id, value)


async def main(*arguments: str) -> None:
    root, engine, durability, count, tasks = arguments
    full = durability == "full"
    home = open_home(root)
    async with open_store(home, engine, durability="full" if full else "normal") as store:
        say("open")
        async with anyio.create_task_group() as group:
            for task in range(int(tasks)):
                group.start_soon(work, store, task, int(count))
        say("done")
        if durability == "leave":
            os._exit(0)  # as SIGKILL, but after the last acknowledgement


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
