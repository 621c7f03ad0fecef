"""The user's script of test_users.py."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import minimodal
from minimodal import context

app = minimodal.App("users")
holding = minimodal.App("holding")


def _mine() -> dict[str, object]:
    """The call that runs here, as the engine knows it."""

    async def ask() -> dict[str, object]:
        reply = await context.ask("call.show", id=minimodal.current_function_call_id())
        return dict(reply.fields["call"])

    from minimodal.face import block

    return block(ask())


def user() -> str:
    return str(_mine()["user"])


@app.function()
def whoami(_: None = None) -> str:
    return user()


@app.function()
def full() -> str:
    row = _mine()
    return f"{row['user']} {row['priority']}"


@app.function()
def names(count: int) -> Iterator[str]:
    for _ in range(count):
        yield user()


@app.cls()
class Teller:
    @minimodal.method()
    def who(self) -> str:
        return user()


@app.function()
def nested() -> list[str]:
    return [full.remote(), full.spawn().get()]


@app.function()
def poses() -> str:
    with minimodal.as_user("root"):
        return full.remote()


@app.function()
def lies() -> str:
    """Says that another call makes this one, and whose it is."""
    context.acting.set(("root", 9))
    here = context.this_input()
    assert here is not None
    token = context.current_input.set(context.InputContext("fc-of-another", "in-1", 0))
    try:
        return full.remote()
    finally:
        context.current_input.reset(token)


@app.function(max_containers=1)
def one_at_a_time(gate: str = "") -> str:
    while gate and not os.path.exists(gate):  # not a Queue: who waits for one lends its slot
        time.sleep(0.005)
    time.sleep(0.004)  # the work; what is shorter is sent ahead of need, and then it does not queue
    return str(time.monotonic())


@holding.function(max_containers=1)
def hold() -> None:
    time.sleep(600)


@app.function(max_containers=4)
def at_once() -> tuple[float, float]:
    began = time.monotonic()
    time.sleep(0.05)
    return began, time.monotonic()


@app.function(max_containers=4)
def also() -> tuple[float, float]:
    return at_once.local()
