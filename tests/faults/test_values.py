"""Values and streams: F24-F27 and F100, and logs: F14, F15."""

from __future__ import annotations

import os
import queue
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minimodal.agent.executor import CREDIT_ITEMS
from minimodal.engine.events import Event
from minimodal.engine.slot import TAKE_BATCH
from minimodal.errors import (
    CallCancelled,
    ResourceExhaustedError,
    SerializationError,
)
from tests.faults.functions import Canary, do, neighbour, nested, numbers
from tests.faults.suite import Platform, Watch, on

Seen = Callable[[str], None]


@on("process", "bubblewrap")
@pytest.mark.fault(
    "F14",
    injected="yes | head -c 200 MB through a subprocess",
    expected="memory flat within 64 MB, other calls go on, what is dropped is counted",
)
def test_f14_flood_of_output(platform: Platform, seen: Seen) -> None:
    dropped: queue.SimpleQueue[str] = queue.SimpleQueue()

    def note(event: Event) -> None:
        if event.kind == "log" and "bytes of output dropped" in event.fields["text"]:
            dropped.put(event.fields["text"])

    stop = platform.on_loop(lambda: platform.engine.events.subscribe(note))
    neighbour.remote("fine")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call = platform.start(do, "flood", 20, 200 << 20)
    longest = 0.0
    while not call.done():
        started = time.monotonic()
        assert neighbour.remote("fine") == "fine"
        longest = max(longest, time.monotonic() - started)
    assert call.result() == "fine"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    words = dropped.get(timeout=10)
    platform.on_loop(stop)
    assert grown < 64
    seen(f"{words}; memory +{grown:.0f} MB; a neighbour's call at most {longest * 1e3:.0f} ms")


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F15",
    injected="a line of 3 MB, invalid UTF-8, NUL and ANSI escapes, 200,000 empty lines",
    expected="the line is cut and says so, bytes are shown escaped, the call goes on",
)
def test_f15_odd_logs(platform: Platform, events: Watch, seen: Seen) -> None:
    assert do.remote("odd logs") == "fine"
    assert "characters cut" in events.line("xxxx")
    assert events.line("bad") == "bad \\xff\\xfe utf-8"
    assert "\x00" in events.line("nul") or "\\x00" in str(events.seen[-1].fields["text"])
    seen("cut, escaped, counted")


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F25",
    injected="break out of a generator's loop; drop the iterator; stall while it yields 1 MB items",
    expected="the producer stops within its credits; the slot is free in 2 s",
)
def test_f25_consumer_stops(platform: Platform, events: Watch, seen: Seen) -> None:
    for _ in numbers.remote_gen(10_000, 10):
        break
    iterator = iter(numbers.remote_gen(10_000, 1 << 20))
    next(iterator)
    events.line("item 15")
    started = time.monotonic()
    del iterator
    assert len(list(numbers.remote_gen(3, 10))) == 3
    took = time.monotonic() - started
    texts = [str(e.fields["text"]) for e in events.rest() if e.kind == "log"]
    produced = max(int(text.split()[1]) for text in texts if text.startswith("item"))
    assert took < 10  # under 2 s, but for a machine that has much else to do
    # A batch of items is with the consumer, and as many as it has credits for are on their way.
    assert produced < TAKE_BATCH + CREDIT_ITEMS
    seen(f"at most {produced} items ahead; the next call {took:.1f} s after the drop")


@on("process", "bubblewrap", "docker")
@pytest.mark.fault(
    "F26",
    injected="cancel while queued, starting, running, sending 64 MB, finished",
    expected="the outcome is fixed, the slot is free in 2 s",
)
def test_f26_cancel_in_each_phase(platform: Platform, events: Watch, seen: Seen) -> None:
    running = do.spawn("wait")
    queued = do.spawn("fine")
    starting = do.with_options(env={"NEW": str(time.monotonic_ns())}).spawn("fine")
    events.line("who")
    for call in (queued, starting, running):
        call.cancel()
        with pytest.raises(CallCancelled):
            call.get(timeout=2)
    sending = do.spawn("zeros", 64 << 20)
    sending.cancel()
    done = do.spawn("fine")
    assert done.get(timeout=10) == "fine"
    done.cancel()
    assert done.get(timeout=1) == "fine", "what is recorded stays"
    with pytest.raises(CallCancelled):
        sending.get(timeout=1)
    seen("CallCancelled four times; a finished call keeps its result")


@on("process", "bubblewrap")
@pytest.mark.fault(
    "F27",
    injected="2 GB result, 2 GB argument, deep nesting, unpicklable, 1 M items",
    expected="an error that names the limit or type, before memory is taken; the rest arrives",
)
def test_f27_limits_on_values(platform: Platform, seen: Seen) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ResourceExhaustedError, match=r"result of do .*at most 1,074 MB") as caught:
        do.remote("zeros", 2 << 30)
    with pytest.raises(ResourceExhaustedError, match="argument"):
        do.remote("echo", bytes(2 << 30))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 64
    with pytest.raises((SerializationError, RecursionError)):
        do.remote("echo", nested(100_000))
    with pytest.raises((SerializationError, RecursionError)):
        do.remote("nested", 100_000)
    with pytest.raises(SerializationError):
        do.remote("echo", threading.Lock())
    assert len(do.remote("list", 1_000_000)) == 1_000_000
    seen(f"{caught.value}; memory +{grown:.0f} MB")


@on("process")
@pytest.mark.fault(
    "F100",
    injected="pickles that make a directory, as argument and result",
    expected="the engine opens none; only the one who asks for the value",
)
def test_f100_malicious_pickle(platform: Platform, tmp_path: Path, seen: Seen) -> None:
    result = str(tmp_path / "result")
    call = do.spawn("canary", result)
    assert _ended(call)
    assert not os.path.exists(result), "the engine recorded it and did not open it"
    call.get()
    assert os.path.exists(result), "who asks for the value unpickles it"
    argument = str(tmp_path / "argument")
    do.remote("echo", Canary(argument))
    seen("only get() opened them")


def _ended(call: Any) -> bool:
    deadline = time.monotonic() + 10
    while call.status() in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # `get` would wait better, and unpickle
    return True
