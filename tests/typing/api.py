"""What a user's types are worth: each line is a promise. Read by mypy and pyright, never run.

`assert_type` fails for a type that is wrong and for one that got lost; a line with
`type: ignore[code]` is a mistake that the checkers must find, since unused ignores are errors.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=error, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any

from typing_extensions import assert_type

import minimodal as modal
from minimodal import App, FunctionCall, Image, method
from minimodal.face import BothIterator

app = App("typed", image=Image.debian_slim())


@app.function(cpu=1.0, memory=512, timeout=60)
def square(x: int, *, times: int = 1) -> int:
    return x * x * times


@app.function()
async def fetch(url: str) -> bytes:
    return url.encode()


@app.function()
def count(n: int) -> Iterator[int]:
    yield from range(n)


@app.function()
async def ticks(n: int) -> AsyncIterator[str]:
    yield str(n)


@app.cls(scaledown_window=60)
class Model:
    name: str = modal.parameter(default="small")

    @modal.enter()
    def load(self) -> None: ...

    @method()
    def predict(self, x: float) -> list[float]:
        return [x]

    @method()
    async def train(self, epochs: int) -> str:
        return str(epochs)

    @method()
    def stream(self, n: int) -> Iterator[str]:
        yield str(n)

    @property
    def label(self) -> str:
        return self.name


@app.local_entrypoint()
def main(n: int = 3) -> None: ...


# A function: `.remote`, `.local`, a plain call.
assert_type(square.remote(3), int)
assert_type(square.remote(3, times=2), int)
assert_type(square.local(3), int)
assert_type(square(3), int)
square.remote("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
square.remote(3, time=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
square.remote()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# A handle.
assert_type(square.spawn(3), FunctionCall[int])
assert_type(square.spawn(3).get(), int)
assert_type(square.spawn(3).get(timeout=1.5), int)
assert_type(square.spawn(3).result(), int)
assert_type(square.spawn(3).object_id, str)
assert_type(FunctionCall.from_id("fc-1"), FunctionCall[Any])
assert_type(modal.gather(square.spawn(3), square.spawn(4)), list[int])
both: Sequence[object] = FunctionCall.gather(square.spawn(3), fetch.spawn("u"))
square.spawn("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

# In parallel.
assert_type(square.map(range(3)), BothIterator[int])
assert_type(list(square.map(range(3), order_outputs=False)), list[int])
assert_type(list(square.starmap([(1,), (2,)])), list[int])
assert_type(square.for_each(range(3)), None)
assert_type(square.spawn_map(range(3)), None)

# An async function: the remote faces give the value, the local ones a coroutine as undecorated.
assert_type(fetch.remote("u"), bytes)
assert_type(fetch.spawn("u").get(), bytes)
assert_type(list(fetch.map(["u"])), list[bytes])
in_this_process: Coroutine[Any, Any, bytes] = fetch.local("u")
in_this_process = fetch("u")
in_this_process = fetch.with_options(timeout=5).local("u")
in_this_process = square.local(3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

# Generators keep the type of their items.
assert_type(list(count.remote_gen(3)), list[int])
assert_type(list(count.spawn(3).stream()), list[int])
assert_type(list(ticks.remote_gen(3)), list[str])
assert_type(count.local(3), Iterator[int])
assert_type(ticks.local(3), AsyncIterator[str])
count.remote_gen("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
square.remote_gen(3)  # type: ignore[arg-type]  # pyright: ignore[reportAttributeAccessIssue]


# Each way that does I/O has `.aio`.
async def awaited() -> None:
    assert_type(await square.remote.aio(3), int)
    assert_type(await fetch.remote.aio("u"), bytes)
    assert_type(await square.spawn.aio(3), FunctionCall[int])
    assert_type(await (await square.spawn.aio(3)).get.aio(), int)
    assert_type(await fetch.local("u"), bytes)
    assert_type([each async for each in square.map.aio(range(3))], list[int])
    assert_type([each async for each in square.map(range(3))], list[int])
    assert_type([each async for each in count.remote_gen.aio(3)], list[int])
    assert_type([each async for each in ticks.remote_gen(3)], list[str])
    assert_type(await square.for_each.aio(range(3)), None)
    await square.remote.aio("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async with app.run() as opened:
        assert_type(opened, App)


# A variant is the same function.
assert_type(square.with_options(cpu=2).remote(3), int)
assert_type(square.with_concurrency(max_inputs=4).remote(3), int)
assert_type(fetch.with_options(timeout=5).remote("u"), bytes)
square.with_options(timeuot=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

# A class: its objects have the attributes of the user's class, its methods are functions.
# mypy takes no notice of class decorators (python/mypy#3135): for it `Model` stays the plain class.
model = Model(name="large")  # type: ignore[call-arg]
assert_type(model.predict.remote(1.0), list[float])
assert_type(model.predict.spawn(1.0).get(), list[float])
assert_type(list(model.predict.map([1.0])), list[list[float]])
assert_type(model.predict.local(1.0), list[float])
assert_type(model.predict(1.0), list[float])
assert_type(model.train.remote(3), str)
training: Coroutine[Any, Any, str] = model.train.local(3)
assert_type(list(model.stream.remote_gen(3)), list[str])
assert_type(model.label, str)
assert_type(model.name, str)
larger = Model.with_options(cpu=2)()  # type: ignore[attr-defined]
larger_prediction: list[float] = larger.predict.remote(1.0)
model.predict.remote("x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def awaited_methods() -> None:
    assert_type(await model.predict.remote.aio(1.0), list[float])
    assert_type(await model.train.remote.aio(3), str)
    assert_type([each async for each in model.stream.remote_gen.aio(3)], list[str])


# The entry point stays a function; where the code runs.
assert_type(main(3), None)
main("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
assert_type(modal.is_local(), bool)
assert_type(modal.current_function_call_id(), "str | None")
assert_type(modal.current_input_id(), "str | None")
with app.run() as running:
    assert_type(running, App)
