"""The user's script of the rows about daemons, disks, limits and load."""

from __future__ import annotations

import asyncio
import os
import time

import minimodal

app = minimodal.App("load")


@app.function(block_network=True, max_containers=1)
def offline(value: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return value


@app.function(max_containers=2)
def work(value: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return value


@app.function(max_containers=4)
@minimodal.concurrent(max_inputs=1000)
async def in_flight(seconds: float) -> None:
    await asyncio.sleep(seconds)


@app.cls()
class Crashes:
    @minimodal.enter()
    def die(self) -> None:
        if not os.path.exists("/there/is/no/such/file"):
            os._exit(3)

    @minimodal.method()
    def work(self, value: int) -> int:
        return value


@app.function(cpu=1.0, scaledown_window=300)
def one_core(value: int, seconds: float = 0.0) -> int:
    time.sleep(seconds)
    return value


@app.function(cpu=1.0, scaledown_window=300)
def another_core(value: int) -> int:
    return value
