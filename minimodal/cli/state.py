"""The objects of the home for commands, without an engine: `with home_objects(): Volume.from_name(…)`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from .parser import load_settings

if TYPE_CHECKING:
    from minimodal.engine.client import LoopClient


@contextmanager
def home_objects() -> Iterator[None]:
    """Make what lies in the home the current client, for the block.

    It works beside engines that run: files and database are shared with them.
    """
    from minimodal import context

    keeper = _Keeper(load_settings().home)
    client = keeper.start()
    before = context.set_client(client)
    try:
        yield
    finally:
        context.set_client(before)
        keeper.stop()


class _Keeper:
    """A thread with a loop, on which the objects are open."""

    def __init__(self, home: Any) -> None:
        self._home = home
        self._ready: Future[LoopClient] = Future()
        self._stop: Any = None
        self._loop: Any = None
        self._thread = threading.Thread(target=self._run, name="minimodal-objects", daemon=True)

    def start(self) -> LoopClient:
        self._thread.start()
        return self._ready.result()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        import anyio

        from minimodal.face import client_threads

        client_threads.add(threading.get_ident())
        try:
            anyio.run(self._main)
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)
        finally:
            client_threads.discard(threading.get_ident())

    async def _main(self) -> None:
        import asyncio

        import anyio

        from minimodal.engine.client import LoopClient
        from minimodal.engine.objects import open_objects
        from minimodal.engine.offline import Offline
        from minimodal.engine_lock import hold_engine_lock
        from minimodal.home import open_home
        from minimodal.types import new_id

        home = open_home(self._home)
        self._loop, self._stop = asyncio.get_running_loop(), anyio.Event()
        async with AsyncExitStack() as stack:
            engine_id = new_id("en")
            stack.enter_context(hold_engine_lock(home, engine_id, role="command"))
            objects = await stack.enter_async_context(open_objects(home, engine_id, sweep=False))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            offline = Offline(tasks)
            objects.add_to(offline.ops)
            client = LoopClient(offline, self._loop)
            self._ready.set_result(client)
            await self._stop.wait()
            client.close()
            tasks.cancel_scope.cancel()
