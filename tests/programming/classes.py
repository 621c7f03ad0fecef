"""The user's script of test_cls.py: what runs in the containers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import minimodal

app = minimodal.App("classes")


class Named:
    name: str = minimodal.parameter(default="nobody")

    @minimodal.enter()
    def prepare(self) -> None:
        self.order = [*self.order, "parent"]

    @minimodal.method()
    def greet(self, word: str) -> str:
        return f"{word} {self.name}"


@app.cls()
class Counter(Named):
    start: int = minimodal.parameter(default=0)
    KIND = "counter"

    def __repr__(self) -> str:
        return f"Counter of {self.name}"

    @minimodal.enter(snap=True)
    def warm_up(self) -> None:
        self.order = ["snap"]
        self.value = self.start
        self.zygote = os.getpid()

    @minimodal.enter()
    def load(self) -> None:
        self.order.append("child")

    @minimodal.method()
    def add(self, n: int) -> int:
        self.value += n
        return self.value

    @minimodal.method()
    def report(self) -> dict[str, Any]:
        return {
            "order": self.order,
            "container": os.environ["MINIMODAL_TASK_ID"],
            "forked": self.zygote != os.getpid(),
            "plain": self.plain(),
        }

    @minimodal.method()
    def count(self, n: int) -> Iterator[int]:
        for _ in range(n):
            yield self.add(1)

    @minimodal.method()
    def three_ways(self) -> tuple[str, str, str]:
        return self.greet.remote("remote"), self.greet.local("local"), self.greet("plain")

    @minimodal.method()
    def fails(self) -> None:
        raise LookupError(f"{self.name} has nothing")

    def plain(self) -> str:
        return f"plain {self.name}"


@app.cls()
class Child(Counter):  # type: ignore[misc]  # a Cls stands for the user's class
    @minimodal.method()
    def greet(self, word: str) -> str:
        return f"{super().greet(word)}!"


@app.cls()
class Loop:
    """Everything async runs on one loop."""

    @minimodal.enter()
    async def start(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ticks: asyncio.Queue[int] = asyncio.Queue()
        self.feeder = asyncio.ensure_future(self._feed())  # noqa: TID251  # what a user would do

    async def _feed(self) -> None:
        for n in range(100):
            await self.ticks.put(n)

    @minimodal.method()
    async def tick(self) -> int:
        assert asyncio.get_running_loop() is self.loop
        return await self.ticks.get()

    @minimodal.method()
    async def ticks_from(self, n: int) -> AsyncIterator[int]:
        for _ in range(n):
            yield await self.ticks.get()

    @minimodal.method()
    def blocking(self) -> str:
        return "a plain method beside async ones"


@app.cls()
class Old:
    def __init__(self, base: int, *, factor: int = 2) -> None:
        self.base, self.factor = base, factor

    @minimodal.method()
    def times(self, n: int) -> int:
        return self.base + self.factor * n


@app.function()
def use(handle: Any, word: str) -> Any:
    """Calls what it was given: an object or one of its methods."""
    return (
        handle.remote(word) if isinstance(handle, minimodal.Function) else handle.greet.remote(word)
    )


@app.cls(max_containers=1)
class Switch:
    """State that tests set and that @enter methods elsewhere read."""

    @minimodal.enter()
    def start(self) -> None:
        self.works = False
        self.asked = 0

    @minimodal.method()
    def turn(self, works: bool) -> int:
        self.works = works
        return self.asked

    @minimodal.method()
    def ask(self) -> bool:
        self.asked += 1
        return self.works


@app.cls()
class Broken:
    @minimodal.enter()
    def start(self) -> None:
        if not Switch().ask.remote():
            raise ConnectionRefusedError("the database is down")

    @minimodal.method()
    def work(self, n: int) -> int:
        return n + 1


@app.cls()
class Hangs:
    @minimodal.enter()
    def start(self) -> None:
        while True:
            pass

    @minimodal.method()
    def work(self) -> None: ...


@app.cls()
class Ends:
    @minimodal.enter()
    def start(self) -> None:
        os._exit(7)

    @minimodal.method()
    def work(self) -> None: ...


leaving = minimodal.App("leaving")


@leaving.cls()
class Leaves:
    how: str = minimodal.parameter()

    @minimodal.method()
    def work(self) -> str:
        print(f"{self.how} works")
        return self.how

    @minimodal.exit()
    def first(self) -> None:
        print(f"{self.how} leaves")
        if self.how == "raises":
            raise ValueError("while leaving")

    @minimodal.exit()
    def second(self) -> None:
        print(f"{self.how} has left")


@leaving.cls()
class LeavesLater:
    @minimodal.method()
    async def work(self) -> None: ...

    @minimodal.exit()
    async def leave(self) -> None:
        await asyncio.sleep(0)
        print("async has left")
