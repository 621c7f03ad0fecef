"""Queue: order, waiting, bounds, partitions; from containers and from here."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from minimodal import Queue
from minimodal.config import load_config
from minimodal.errors import InvalidError, NotFoundError, ResourceExhaustedError
from minimodal.host import Host
from tests.objects import functions as f
from tests.objects.conftest import once

pytestmark = pytest.mark.usefixtures("running")


def test_between_containers_and_this_process() -> None:
    with Queue.ephemeral() as shared:
        assert f.queue_put.remote(shared, [1, "two", None])
        assert [shared.get(), shared.get()] == [1, "two"]
        assert f.queue_get.remote(shared, 5) is None, "None is a value"
        assert f.queue_get.remote(shared, 0.01) == "empty"


def test_a_getter_in_a_container_is_woken_at_once() -> None:
    with Queue.ephemeral() as shared:
        f.queue_get.remote(shared, 0)  # a warm container
        call = f.queue_get.spawn(shared, 30)
        while call.status() != "running":
            time.sleep(0.01)
        asked = time.monotonic()
        shared.put("woken")
        assert call.get() == "woken"
        assert time.monotonic() - asked < 5.0, "by event, not by looking again"


def test_each_item_goes_to_one_getter() -> None:
    with Queue.ephemeral() as shared:
        getter = f.queue_get.with_options(max_containers=2)
        calls = [getter.spawn(shared, 30) for _ in range(6)]
        shared.put_many(list(range(6)))
        assert sorted(call.get() for call in calls) == list(range(6))


@once
def test_get() -> None:
    with Queue.ephemeral() as shared:
        assert shared.get(block=False) is None
        assert shared.get_many(3, block=False) == []
        with pytest.raises(queue.Empty):
            shared.get(timeout=0.01)
        with pytest.raises(queue.Empty):
            shared.get_many(2, timeout=0.01)
        shared.put_many([1, 2, 3])
        assert shared.get_many(10) == [1, 2, 3]
        with pytest.raises(InvalidError, match="at least 1"):
            shared.get_many(0)


@once
def test_get_many_returns_with_the_first_item() -> None:
    with Queue.ephemeral() as shared:
        timer = threading.Timer(0.05, shared.put, ["first"])
        timer.start()
        assert shared.get_many(100, timeout=20) == ["first"]
        timer.join()


def test_a_full_partition() -> None:
    with Queue.ephemeral() as shared:
        shared.put_many(list(range(5_000)))
        with pytest.raises(queue.Full):
            shared.put(1, block=False)
        with pytest.raises(queue.Full):
            shared.put(1, timeout=0.01)
        assert f.queue_put.remote(shared, [1], False) is False
        shared.put(1, partition="another")
        timer = threading.Timer(0.05, shared.get)
        timer.start()
        shared.put("waited", timeout=20)
        timer.join()
        assert shared.len() == 5_000
        with pytest.raises(ResourceExhaustedError, match="holds 5000"):
            shared.put_many(list(range(5_001)))


@once
def test_partitions() -> None:
    with Queue.ephemeral() as shared:
        shared.put("default")
        shared.put_many(["a1", "a2"], partition="a")
        assert [shared.len(), shared.len(partition="a"), shared.len(total=True)] == [1, 2, 3]
        assert f.queue_get.remote(shared, 5, "a") == "a1"
        shared.clear(partition="a")
        assert shared.len(total=True) == 1
        shared.put("b", partition="b")
        shared.clear(all=True)
        assert shared.len(total=True) == 0
        for wrong in ("", "x" * 65):
            with pytest.raises(InvalidError, match="partition"):
                shared.put(1, partition=wrong)
        with pytest.raises(InvalidError, match="not both"):
            shared.len(partition="a", total=True)
        with pytest.raises(InvalidError, match="partition_ttl"):
            shared.put(1, partition_ttl=0)


@once
def test_a_partition_expires(host: Host) -> None:
    class Later:
        def now(self) -> float:
            return clock.now() + 61

        def monotonic(self) -> float:
            return clock.monotonic()

    store = host.engine.objects.store
    clock = store.clock
    with Queue.ephemeral() as shared:
        shared.put("short", partition="p", partition_ttl=60)
        shared.put("long", partition="q")
        try:
            store.clock = Later()
            assert shared.get(block=False, partition="p") is None
            assert shared.len(total=True) == 1
            shared.put("new", partition="p", partition_ttl=60)
            assert shared.get(partition="p") == "new"
        finally:
            store.clock = clock


@once
def test_iterate_takes_nothing() -> None:
    with Queue.ephemeral() as shared:
        shared.put_many([1, 2, 3])
        assert list(shared.iterate()) == [1, 2, 3]
        assert shared.len() == 3
        assert list(shared.iterate(partition="none")) == []
        seen = []
        timer = threading.Timer(0.05, shared.put, [4])
        timer.start()
        for item in shared.iterate(item_poll_timeout=1.0):
            seen.append(item)
            if item == 4:
                break
        timer.join()
        assert seen == [1, 2, 3, 4]


@once
def test_a_getter_that_gives_up_loses_nothing() -> None:
    """Cancelled at any moment, also when the answer is on its way, an item is not lost."""

    async def scenario() -> set[int]:
        got: list[int] = []
        async with Queue.ephemeral() as shared:

            async def one() -> None:
                with anyio.move_on_after(0.005):
                    got.append(await shared.get.aio())

            await shared.put_many.aio(list(range(50)))
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(one)
            with anyio.move_on_after(5):
                while len(got) < 50:
                    got += await shared.get_many.aio(100)
        assert len(got) == len(set(got)), "nor given twice"
        return set(got)

    assert anyio.run(scenario) == set(range(50))


@once
def test_limits() -> None:
    with Queue.ephemeral() as shared:
        with pytest.raises(ResourceExhaustedError, match="limit of a Queue"):
            shared.put(bytes(1 << 20))
        shared.put(bytes((1 << 20) - 100))
    with pytest.raises(NotFoundError):
        shared.len()
    with pytest.raises(RuntimeError, match="from_name"):
        Queue()


@once
def test_deleted_while_somebody_waits() -> None:
    Queue.objects.create("doomed")
    shared = Queue.from_name("doomed")
    timer = threading.Timer(0.05, Queue.objects.delete, ["doomed"])
    timer.start()
    with pytest.raises(NotFoundError, match="deleted"):
        shared.get(timeout=20)
    timer.join()


SCRIPT = """
from minimodal import Queue
from minimodal.config import load_config
from minimodal.host import Host
with Host(load_config({"backend": "process"})):
    Queue.from_name("kept").put("from another process")
"""


@once
def test_survives_a_restart_and_is_shared_with_other_engines(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIMODAL_HOME", str(scratch / "restart"))
    shared = Queue.from_name("kept", create_if_missing=True)
    with Host(load_config({"backend": "process"})):
        shared.put_many([1, 2])
    with Host(load_config({"backend": "process"})):
        assert shared.get() == 1
        assert shared.get() == 2
        with subprocess.Popen([sys.executable, "-c", SCRIPT], env=dict(os.environ)):
            assert shared.get(timeout=30) == "from another process"
