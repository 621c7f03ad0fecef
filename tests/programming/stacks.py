"""Functions that stand still in different ways."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import minimodal

app = minimodal.App("stacks")
APP = app
reached = minimodal.Queue.from_name("stacks-reached", create_if_missing=True)


@app.function()
def sleeps(x: int) -> None:
    inner(x)


def inner(x: int) -> None:
    reached.put(x)
    time.sleep(60)  # here


@app.function()
def dumps_that_nobody_reads(times: int) -> int:
    from minimodal.agent.stacks import SIGNAL

    for _ in range(times):
        os.kill(os.getpid(), SIGNAL)
    return times


@app.function(max_containers=1)
def says_nothing(waits: bool) -> None:
    from minimodal.agent.stacks import SIGNAL

    signal.signal(SIGNAL, signal.SIG_IGN)
    if waits:
        inner(0)


@app.function()
def holds_the_gil() -> None:
    reached.put(0)
    sum(range(10**11))  # C code that never lets go


@app.function()
async def awaits() -> None:
    await below()


async def below() -> None:
    await reached.put.aio(0)
    await asyncio.sleep(60)  # there


@app.function()
async def blocks_its_loop() -> None:
    reached.put(0)
    time.sleep(60)  # in the loop  # noqa: ASYNC251  # on purpose


@app.function()
@minimodal.concurrent(max_inputs=4)
def many(x: int) -> None:
    inner(x)
