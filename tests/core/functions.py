"""The user's script of the tests in this folder: what runs in the containers."""

from __future__ import annotations

import asyncio
import ctypes
import os
import pickle
import re
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import minimodal

app = minimodal.App("core")


class Custom(Exception):
    """An exception with a constructor that pickle alone would call wrongly."""

    def __init__(self, number: int, *, why: str = "unknown") -> None:
        super().__init__(number)
        self.why = why


class Refuses:
    def __reduce__(self) -> Any:
        raise TypeError("this object refuses to be pickled")


def explode() -> None:
    raise ValueError("it arrived and then broke")


class Explodes:
    """Pickles well and cannot be unpickled."""

    def __reduce__(self) -> Any:
        return explode, ()


@app.function()
def square(x: int) -> int:
    return x * x


@app.function()
def add(a: int, b: int, *, times: int = 1) -> int:
    return (a + b) * times


@app.function()
async def async_add(a: int, b: int) -> int:
    await asyncio.sleep(0)
    return a + b


@app.function()
def echo(value: Any) -> Any:
    return value


class Block:
    """As numpy does it: its memory travels beside the pickle and the copy is made over it."""

    def __init__(self, memory: Any) -> None:
        self.memory = memoryview(memory)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Block, (pickle.PickleBuffer(self.memory),)


@app.function()
def marked(block: Block) -> Block:
    """Writes into what it was given and gives it back."""
    block.memory[0] = 1
    return block


@app.function()
def kinds(*values: Any, **named: Any) -> tuple[dict[str, str], Any]:
    """The types of what arrived, and the first value."""
    kinds = {str(i): type(value).__name__ for i, value in enumerate(values)}
    kinds |= {name: type(value).__name__ for name, value in named.items()}
    return kinds, values[0]


@app.function()
def sizes(data: bytes) -> int:
    return len(data)


@app.function(max_containers=1)
def peak_memory(*values: Any) -> int:
    """The most bytes that this process has had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@app.function()
def where() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "cwd": os.getcwd(),
        "local": minimodal.is_local(),
        "call": minimodal.current_function_call_id(),
        "input": minimodal.current_input_id(),
        "env": dict(os.environ),
        "module": __name__,
    }


@app.function()
def which_python(n: int) -> Iterator[str]:
    """The version that runs it, n times; then an exception of the script's own."""
    for _ in range(n):
        yield "{}.{}".format(*sys.version_info)
    raise Custom(n, why="it is over")


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
async def async_count(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


@app.function()
def breaks_after(n: int) -> Iterator[int]:
    yield from range(n)
    raise Custom(n, why="after the items")


@app.function()
def leaves_a_mark(path: str) -> Iterator[int]:
    """Yields for ever; writes a file when it is closed."""
    try:
        n = 0
        while True:
            yield n
            n += 1
    finally:
        with open(path, "w") as file:
            file.write("closed")


@app.function()
def breaks_linecache() -> None:
    """As libraries do that generate code, and answer for its source."""
    import linecache

    linecache.getlines = lambda *_: None  # type: ignore[assignment,misc,return-value]
    raise ValueError("told all the same")


@app.function()
def fails(number: int) -> None:
    try:
        _ = {}["missing"]  # type: ignore[var-annotated]  # nothing is in it
    except KeyError as error:
        raise Custom(number, why="because") from error


@app.function()
def ends_process(how: str) -> str:
    if how == "sys.exit":
        sys.exit(3)
    if how == "os._exit":
        os._exit(4)
    if how == "segfault":
        ctypes.string_at(0)
    if how == "kill":
        os.kill(os.getpid(), 15)
    return "alive"


@app.function()
def gives(what: str) -> Any:
    return {"refuses": Refuses, "explodes": Explodes, "number": lambda: 1}[what]()


@app.function(timeout=1, startup_timeout=30)
def sleeps(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@app.function(timeout=1, startup_timeout=30)
def holds_the_gil() -> bool:
    """Catastrophic backtracking inside the C code of `re`: no signal handler runs."""
    return re.match(r"(a+)+$", "a" * 40 + "b") is None


@app.function(timeout=1, startup_timeout=30)
async def async_sleeps(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds


@app.function(retries=minimodal.Retries(max_retries=2, initial_delay=0.0))
def succeeds_at_third(path: str) -> int:
    with open(path, "a") as file:
        file.write("x")
    tried = os.path.getsize(path)
    if tried < 3:
        raise ValueError(f"attempt {tried}")
    return tried


@app.function()
def prints(lines: int) -> None:
    for i in range(lines):
        print(f"line {i}")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from the descriptor\n")


@app.function()
def sum_of_squares(n: int) -> int:
    return sum(square.map(range(n)))


@app.function(max_containers=1)
def factorial(n: int) -> int:
    return 1 if n <= 1 else n * factorial.remote(n - 1)


@app.function()
def endless(depth: int) -> int:
    return endless.remote(depth + 1)


@app.function()
def waits_for(path: str) -> str:
    """Runs until the file is there."""
    while not os.path.exists(path):
        time.sleep(0.01)
    return path


def notes(word: str) -> None:
    """At build time."""
    with open("/noted", "w") as file:
        file.write(word)
