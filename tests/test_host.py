"""What a platform changes in the process that it runs in, and gives back."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import minimodal
from minimodal.config import load_config
from minimodal.errors import CallCancelled
from minimodal.host import Host


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds")
@pytest.mark.parametrize(
    ("programs", "meanwhile"),
    [((700, 10, 10), 50_000), ((0, 10, 10), 0), ((90_000, 5, 5), 90_000)],
)
def test_garbage_is_looked_for_less_often(programs: tuple[int, int, int], meanwhile: int) -> None:
    """But where the program has turned it off, or has a higher number of its own."""
    gc.set_threshold(*programs)
    with Host(load_config({"backend": "process"})):
        assert gc.get_threshold()[0] == meanwhile
    assert gc.get_threshold() == programs


@pytest.mark.usefixtures("thresholds")
def test_what_the_program_sets_meanwhile_stays() -> None:
    gc.set_threshold(700, 10, 10)
    with Host(load_config({"backend": "process"})):
        gc.set_threshold(1000, 10, 10)
    assert gc.get_threshold() == (1000, 10, 10)


replaced = minimodal.App("replaced")


@replaced.function(serialized=True)
def runs_on() -> None:
    time.sleep(60)


def test_it_ends_while_a_call_finishes_on_code_that_was_replaced() -> None:
    """Its last call takes a pool with it: while the engine goes through them."""
    with ThreadPoolExecutor(1) as threads:
        with Host(load_config({"backend": "process"})) as host:
            replaced.run().__enter__()  # and it is still open at the end
            call = threads.submit(runs_on.remote)
            while not host.running_of("runs_on"):
                time.sleep(0.01)  # nobody tells
            [pool] = host.engine.pools.values()
            host.loop.call_soon_threadsafe(host.engine.drain, pool)
        with pytest.raises(CallCancelled):
            call.result(10)
