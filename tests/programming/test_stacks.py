"""The live stack of a running call, whatever it does: `call.stack`, and `minimodal calls stack`."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import minimodal
from minimodal.cli.engines import ask
from minimodal.errors import ConflictError, ExecutionError, NotFoundError
from minimodal.host import Host
from tests.programming import stacks as f

APP = f.APP

pytestmark = pytest.mark.usefixtures("running")


@pytest.fixture
def begun() -> Iterator[Any]:
    """Start calls that have reached their place; they are cancelled at the end."""
    started = []

    def begin(function: Any, *arguments: Any) -> str:
        call = function.spawn(*arguments)
        started.append(call)
        f.reached.get(timeout=60)
        return str(call.object_id)

    yield begin
    for call in started:
        call.cancel()


def stack(host: Host, call_id: str) -> list[dict[str, Any]]:
    return list(ask(host.client, "call.stack", id=call_id)["threads"])


def stack_at(host: Host, call_id: str, functions: list[str], text: str = "") -> dict[str, Any]:
    """The one stack, once it has come to this place: `begun` may be a step too early."""
    deadline = time.monotonic() + 20
    while True:
        threads = stack(host, call_id)
        found = [[frame[2] for frame in thread["frames"]] for thread in threads]
        if found == [functions] and text in threads[0]["frames"][-1][3]:
            return threads[0]
        assert time.monotonic() < deadline, found


@pytest.mark.parametrize(
    ("function", "arguments", "functions", "text"),
    [
        (f.sleeps, (1,), ["sleeps", "inner"], "time.sleep(60)  # here"),
        (f.holds_the_gil, (), ["holds_the_gil"], "sum(range(10**11))"),
        (f.awaits, (), ["awaits", "below", "sleep"], ""),
        (f.blocks_its_loop, (), ["blocks_its_loop"], "time.sleep(60)  # in the loop"),
    ],
)
def test_where_it_is(
    host: Host, begun: Any, function: Any, arguments: Any, functions: list[str], text: str
) -> None:
    thread = stack_at(host, begun(function, *arguments), functions, text)
    assert thread["frames"][0][0].endswith("stacks.py")


def test_stacks_that_nobody_reads_hold_no_call_up() -> None:
    assert f.dumps_that_nobody_reads.remote(1000) == 1000  # more than a pipe holds


def test_asking_one_that_is_silent_holds_nothing_up(host: Host, begun: Any) -> None:
    call_id = begun(f.says_nothing, True)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(stack, host, call_id) for _ in range(20)]
        time.sleep(0.1)  # they are on their way, which nobody tells
        minimodal.FunctionCall.from_id(call_id).cancel()
        f.says_nothing.remote(False)  # in the same container
        assert not any(one.done() for one in asked), "they wait for seconds"
    assert all(isinstance(one.exception(), ExecutionError) for one in asked)


def test_one_of_several_in_a_process(host: Host, begun: Any) -> None:
    first, second = begun(f.many, 1), begun(f.many, 2)
    for call in (first, second):
        assert stack_at(host, call, ["many", "inner"])["name"] == "thread"


@pytest.mark.parametrize("leaves_nothing", ["process"], indirect=True, scope="module")
def test_the_command(host: Host, begun: Any) -> None:
    call_id = begun(f.sleeps, 1)
    stack_at(host, call_id, ["sleeps", "inner"], "# here")
    command = [sys.executable, "-m", "minimodal", "calls", "stack", call_id]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"stacks/sleeps ({call_id}), ")
    assert '/stacks.py", line ' in said
    assert said.endswith(", in inner\n    time.sleep(60)  # here\n")
    found = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["call"]["id"] == call_id
    unknown = subprocess.run([*command[:-1], "fc-0"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1
    assert "no call fc-0" in unknown.stderr


def test_what_does_not_run(host: Host) -> None:
    call = minimodal.FunctionCall.from_id("fc-0000000000000000")
    with pytest.raises(NotFoundError):
        stack(host, call.object_id)
    done = f.sleeps.spawn(1)
    f.reached.get(timeout=60)
    done.cancel()
    with pytest.raises((ConflictError, NotFoundError)):
        stack(host, done.object_id)
