"""What the engine keeps: of apps that are closed, words alone; of calls that wait, what is on record."""

from __future__ import annotations

import gc
import os
import time
import weakref
from pathlib import Path

import pytest

import minimodal
from minimodal.cli.engines import ask
from minimodal.config import load_config
from minimodal.host import Host
from tests.programming.conftest import wait_until

app = minimodal.App("closed")


@app.function(serialized=True, memory=(64, 512))
def double(x: int) -> int:
    return 2 * x


def test_a_closed_app_is_remembered_in_words_alone() -> None:
    with Host(load_config({"backend": "process"})) as host:
        with app.run():
            assert double.remote(4) == 8
            [pool] = [pool for pool in host.engine.pools.values() if pool.sessions]
            key, objects = pool.key, [weakref.ref(pool), weakref.ref(pool.sessions[0])]
            del pool
        wait_until(host, lambda: len(host.engine.gone) == 1)

        def freed() -> bool:
            gc.collect()
            return not any(each() for each in objects)

        wait_until(host, freed)
        [call] = ask(host.client, "call.list", function=key)["calls"]
        assert (call["app_name"], call["state"]) == ("closed", "ok")
        assert ask(host.client, "call.show", id=call["id"])["value"] == "8"
        [container] = ask(host.client, "container.list", since=0.0, function=key)["containers"]
        assert (container["id"], container["state"]) == (call["container"], "ended")
        assert (container["memory_limit"], container["reason"]) == (512, "")


@app.function(serialized=True, max_containers=1)
def size_after(gate: str, data: bytes) -> int:
    while not os.path.exists(gate):
        time.sleep(0.01)
    return len(data)


def test_a_call_waits_while_its_input_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Host(load_config({"backend": "process"})) as host, app.run():
        blobs, gate = host.engine.durable.store.blobs, tmp_path / "gate"
        first = size_after.spawn(str(gate), b"")
        before = set(blobs.digests())
        second = size_after.spawn(str(gate), os.urandom(1 << 20))  # a blob of its own
        [digest] = set(blobs.digests()) - before
        path = blobs.path(digest)
        path.rename(tmp_path / "aside")
        path.mkdir()  # to read it is an error, as on a disk that fails
        gate.touch()
        assert first.get(timeout=20) == 0
        wait_until(host, lambda: f"{second.object_id} waits: " in caplog.text)
        assert second.status() == "queued"
        path.rmdir()
        (tmp_path / "aside").rename(path)
        assert second.get(timeout=20) == 1 << 20
