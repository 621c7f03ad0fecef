"""The composition root: Config → backend → engine → Client, in a loop thread of their own.

The engine never runs in the user's thread, so a `time.sleep` in a script cannot stall scheduling and
a blocking call in a notebook cell, whose thread runs a loop, cannot deadlock.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from . import context
from . import home as homes
from .errors import NotRunningError
from .face import client_threads
from .garbage import RareCollections

if TYPE_CHECKING:
    from types import TracebackType

    import anyio

    from minimodal.images.build import Secrets, Volumes

    from .clock import Clock
    from .config import Config
    from .engine.client import LoopClient
    from .engine.engine import Engine
    from .engine.events import Event
    from .engine.opening import Settings as EngineSettings
    from .gateway.door import Door, Settings
    from .protocols import Reply

DESCRIPTORS = 65536


class BackendSettings(NamedTuple):
    """What a backend reads of the settings, and the engine that it works for."""

    docker_host: str | None
    runtime: str | None
    engine_id: str
    resolve_secrets: Secrets
    mount_volumes: Volumes


class Host:
    """An engine in a thread: `with Host(config) as host:`. It is the current client in the block."""

    def __init__(
        self, config: Config | None = None, role: str = "run", *, clock: Clock | None = None
    ) -> None:
        from .config import load_config

        self.config = config or load_config()
        self.role = role
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._ready: Future[None] = Future()
        # Not `join`: before Python 3.13 one that a signal interrupts takes the thread for ended.
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._started = False  # and is the current client
        self._stopped = False
        self._stop: Callable[[], None] = lambda: None
        self._previous: Any = None
        self._subscribers: list[Callable[[Event], None]] = []
        self.client: LoopClient
        self.engine: Engine
        self.door: Door  # the gateway, open or not
        self.loop: asyncio.AbstractEventLoop

    def subscribe(self, subscriber: Callable[[Event], None]) -> None:
        """Call `subscriber` for each event, on the loop's thread. Before or after the start."""
        if self._ready.done():
            self.loop.call_soon_threadsafe(self.engine.events.subscribe, subscriber)
        else:
            self._subscribers.append(subscriber)

    def start(self) -> Host:
        """Start the engine and make it the current client. Raises what its start raises."""
        if self._thread is not None:
            return self  # a script needed it while it was still being imported
        self._thread = threading.Thread(target=self._run, name="minimodal-engine", daemon=True)
        self._thread.start()
        self._ready.result()
        if self.config.force_build:
            os.environ["MINIMODAL_FORCE_BUILD"] = (
                "1"  # read where images are, also by `serve`'s loader
            )
        if self.config.origin("loglevel") != "default":
            _log_from(self.config.loglevel)
        self._previous = context.set_client(self.client), homes.hosted
        homes.hosted = self.config.home or homes.hosted
        self._started = True
        return self

    def open_gateway(self) -> str:
        """Open the gateway if it is not open, and give the URL of the dashboard.

        Raises StateError where no port is free.
        """
        opened: Future[str] = Future()

        async def open_it() -> None:
            try:
                await self.door.open()
                opened.set_result(self.door.url)
            except Exception as error:
                opened.set_exception(error)

        def begin() -> None:
            self.engine.tasks.start_soon(open_it)

        _call_in(self.loop, begin)
        return opened.result()

    def stop(self) -> None:
        """Stop the engine: running calls are cancelled, containers are gone when this returns.

        Raises, once, the error that stopped it earlier, or that its end brought up.
        """
        if self._thread is None or self._stopped:
            return
        self._stopped = True
        if self._started:
            client, homes.hosted = self._previous
            context.set_client(client)
        self._stop()
        self._ended.wait()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def running_of(self, function: str) -> int:
        """How many calls of the functions of that name run now, roughly: read from any thread."""
        if not self._ready.done() or self._stopped:
            return 0
        pools = tuple(self.engine.pools.values())
        return sum(pool.running for pool in pools if pool.name == function)

    def totals(self) -> dict[str, Any]:
        """What its calls came to so far: calls, failed, containers, and seconds of work."""
        if not self._ready.done() or self._ready.exception() is not None:
            return {"calls": 0, "failed": 0, "containers": 0, "busy": 0.0}
        total = self.engine.total()
        ended = sum(total.states.values())
        return {
            "calls": ended,
            "failed": ended - total.states["ok"] - total.states["cancelled"],
            "containers": sum(total.cold_starts.counts),
            "busy": round(total.service.total, 3),
        }

    def is_running(self) -> bool:
        self._awaited = True
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the engine stops, and raise why if it did so by itself."""
        assert self._thread is not None
        self._ended.wait()
        self._thread.join()
        self.stop()

    def wait_idle(self) -> None:
        """Wait until no call waits or runs (`minimodal run --detach`)."""
        idle: Future[None] = Future()

        def look() -> None:
            pending = (live for live in self.engine.calls.values() if live.outcome is None)
            live = next(pending, None)
            if live is None:
                idle.set_result(None)
            else:
                live.then(lambda _: _call_in(self.loop, look))

        _call_in(self.loop, look)
        idle.result()

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            self.stop()
        except Exception:
            if error is None:
                raise  # else it is the cause of what the user sees already

    def _run(self) -> None:
        import anyio

        client_threads.add(threading.get_ident())
        try:
            anyio.run(self._until_stop, backend_options={"use_uvloop": _has_uvloop()})
            if not self._ready.done():
                self._ready.set_exception(NotRunningError("it was stopped before it was ready"))
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            else:
                self._failure = _innermost(error)
        finally:
            client_threads.discard(threading.get_ident())
            self._ended.set()

    def _gateway_settings(self) -> Settings:
        from .gateway.door import Settings
        from .home import open_home

        config = self.config
        return Settings(
            host=config.host,
            port=config.port,
            strict_port=config.strict_port,
            show_errors=config.show_errors,
            names=config.host_names,
            tokens=open_home(config.home).config / "tokens.json",
        )

    def _op_config(self, caller: Any, fields: Any, payload: Any) -> Reply:
        """The settings in force, and where each came from."""
        from .config import plain_value, settings
        from .protocols import Reply

        rows = [
            {
                "name": name,
                "value": plain_value(getattr(self.config, name)),
                "origin": self.config.origin(name),
                "about": about,
            }
            for name, about in settings()
        ]
        return Reply({"settings": rows})

    async def _until_stop(self) -> None:
        """Stopping before it is ready cancels the start; afterwards the engine stops in good order."""
        import anyio

        self.loop = asyncio.get_running_loop()
        stop = anyio.Event()
        with anyio.CancelScope() as starting:
            self._stop = lambda: _call_in(
                self.loop, stop.set if self._ready.done() else starting.cancel
            )
            if not self._stopped:
                await self._main(stop)

    async def _main(self, stop: anyio.Event) -> None:
        _raise_descriptor_limit()
        from .backends.choose import open_best
        from .engine.client import LoopClient
        from .engine.objects import open_objects
        from .engine.opening import open_engine
        from .engine.visitors import serve_visitors
        from .engine_lock import hold_engine_lock, sweep_dead_engines
        from .gateway.door import open_door
        from .gateway.seam import asker
        from .home import open_home
        from .types import new_id

        home = open_home(self.config.home)
        engine_id = new_id("en")
        async with AsyncExitStack() as stack:
            stack.enter_context(RareCollections())
            lock = stack.enter_context(
                hold_engine_lock(home, engine_id, role=self.role, sole=self.role == "up")
            )
            objects = await stack.enter_async_context(open_objects(home, engine_id, self._clock))
            config = self.config
            settings = BackendSettings(
                config.docker_host,
                config.runtime,
                engine_id,
                objects.secrets.resolve,
                objects.volumes.mounted,
            )
            choice = await stack.enter_async_context(open_best(config.backend, home, settings))
            sweep_dead_engines(home)
            engine = await stack.enter_async_context(
                open_engine(
                    choice.backend,
                    this_machine(config, has_gpu=bool(choice.backend.describe().gpu)),
                    objects,
                    settings=engine_settings(config),
                    check=lock.check,
                )
            )
            self.engine = engine
            if self.role == "up":
                engine.hosting.expect_all()
            await stack.enter_async_context(serve_visitors(engine, home))
            for subscriber in self._subscribers:
                engine.events.subscribe(subscriber)
            if config.backend in ("auto", "embedded"):  # who asked for one knows
                engine.events.publish("notice", "backend", text=choice.why)
            self.client = LoopClient(engine, self.loop)
            self.door = await stack.enter_async_context(
                open_door(engine.web, asker(self.client), self._gateway_settings())
            )
            self.door.on_open = lambda url: engine.events.publish("gateway.open", url)
            engine.ops.add("engine.config", self._op_config)
            engine.web.serve_with(self.door.open, self.door.url_of, lambda: self.door.url)
            if self.role == "up":
                await engine.hosting.host_all()
            self._ready.set_result(None)
            try:
                await stop.wait()
                if self.role == "up":
                    await engine.wait_running(self.config.drain)
            finally:
                self.client.close(engine.failure)


def _innermost(error: BaseException) -> BaseException:
    """The one error in task groups around it."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return _innermost(inner[0]) if len(inner) == 1 else error


def _log_from(level: str) -> None:
    """On stderr, unless the program has set up logging itself."""
    import logging

    logging.getLogger("minimodal").setLevel(level.upper())
    if logging.lastResort is not None:
        logging.lastResort.setLevel(level.upper())


def _raise_descriptor_limit() -> None:
    """1,024 descriptors, the usual soft limit, are few for an engine with many containers."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft < wanted:
        with suppress(ValueError, OSError):  # macOS has a limit below the one that it tells
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _call_in(loop: asyncio.AbstractEventLoop, work: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(work)
    except RuntimeError:
        pass  # the loop has ended by itself


def this_machine(config: Config, has_gpu: bool) -> tuple[Any, ...]:
    """The one node of today: all cores and four fifths of the memory, or the configured budgets."""
    import os

    from .engine.nodes import Node

    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    cpu = config.cpu_budget or float(os.cpu_count() or 1)
    gpu = has_gpu or config.gpu == "ignore"
    return (Node("local", cpu, config.memory_budget or total * 4 // 5, gpu),)


def engine_settings(config: Config) -> EngineSettings:
    """What an engine is told of the settings."""
    from .engine.history import Retention
    from .engine.opening import Settings

    kept = config.retention
    return Settings(
        durability="full" if config.durability == "full" else "normal",
        max_queued=config.max_queued,
        retention=Retention(results=kept, rows=max(kept, Retention().rows)),
    )


def _has_uvloop() -> bool:
    import importlib.util

    return importlib.util.find_spec("uvloop") is not None


def warm_up() -> None:
    """Let uvloop open the pipe that it keeps for good, so that nobody takes it for a leak."""
    if _has_uvloop():
        import uvloop

        uvloop.new_event_loop().close()


_ambient: Host | None = None


def set_ambient(host: Host | None) -> None:
    """Start `host` where code needs an engine and has started none. None: one of its own."""
    global _ambient
    _ambient = host


def start_ambient() -> Any:
    """The engine of a script or notebook that started none itself; it stops when Python exits."""
    global _ambient
    if _ambient is None:
        from . import notebook
        from .output import Printer

        host = _ambient = Host()
        if notebook.is_kernel():
            printer = Printer(notebook.open_cells(lambda call: host.engine.calls.get(call)))
        else:
            printer = Printer()
        _ambient.subscribe(printer.event)
        atexit.register(printer.close)
    _ambient.start()
    atexit.register(_ambient.stop)
    return _ambient.client
