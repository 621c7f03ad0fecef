"""The user's script of test_handles.py: many inputs behind one handle, and trees of calls."""

from __future__ import annotations

import os
from typing import Any

import minimodal

app = minimodal.App("handles")
gate = minimodal.Queue.from_name("handles-gate", create_if_missing=True)


@app.function()
def tenth(x: int, times: int = 1) -> int:
    if x == 13:
        raise ValueError("unlucky")
    return x * 10 * times


@app.function(max_containers=1)
def wears_out(last: bool) -> str:
    from minimodal import experimental

    if last:
        experimental.stop_fetching_inputs()
    return os.environ["MODAL_TASK_ID"]


@app.function()
def reads(call: minimodal.FunctionCall[int]) -> list[int]:
    return list(call.iter())


@app.function()
def leaf(x: int) -> int:
    return x


@app.function()
def waits(timeout: float = 60) -> int:
    return int(gate.get(timeout=timeout))


@app.function()
def branch(x: int) -> Any:
    return [leaf.remote(x), waits.remote()]


@app.function()
def root(x: int) -> Any:
    return branch.remote(x)
