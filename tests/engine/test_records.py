"""What the engine remembers of apps that are closed: words, and none of the objects."""

from __future__ import annotations

import gc
import weakref

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
