"""Where this code runs and which client it talks to.

One process has one current client: the engine hosted here, the agent's connection inside a
container, or a connection to an engine that runs elsewhere on this machine. It is a plain global,
not a ContextVar, because threads that users start do not inherit those. What belongs to one input
(call id, input id) is a ContextVar, because inputs run concurrently.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .face import Pending
from .types import EMPTY, Payload

if TYPE_CHECKING:
    from .protocols import Abandon, Client, Reply


class ContainerContext(NamedTuple):
    """Set by the agent before it imports the user's module."""

    container_id: str
    app_id: str
    app_name: str
    function: str
    image: str  # digest


class InputContext(NamedTuple):
    """The input that the current task or thread works on."""

    call_id: str
    input_id: str
    depth: int


container: ContainerContext | None = None
current_input: ContextVar[InputContext | None] = ContextVar("minimodal_input", default=None)

acting: ContextVar[tuple[str, int]] = ContextVar("minimodal_user", default=("default", 0))
"""Whose calls are made here, and with which priority: see users.py."""

lone_input: InputContext | None = None
"""The one input of a process that works on one at a time: for threads that user code starts."""

calls_on_loop: set[str] = set()
"""Ids of the calls that have begun as tasks of this executor's loop: blocking it stops them too."""

output_blocks = 0  # open enable_output() blocks
show_progress = True

on_call: Callable[[str], None] | None = None
"""Told the id of each call that is made here: a notebook remembers from which cell."""

map_view: Callable[[str, int | None], MapView] | None = None
"""Makes what shows the progress of a map of that function over so many inputs (None: unknown)."""

run_secrets: tuple[Any, ...] = ()
"""Secrets of this run (`minimodal run --env-file`): before those of each app that is defined."""

_client: Client | None = None
_instead: ContextVar[Client | None] = ContextVar("minimodal_client", default=None)
_lock = threading.Lock()


class MapView(Protocol):
    """Shows how far one map is."""

    def update(self, done: int, failed: int) -> None: ...

    def close(self) -> None: ...


def cell() -> int:
    """The number of the notebook's cell, or of the line in IPython, that runs; 0 elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return int(shell.execution_count) if shell is not None else 0


def is_local() -> bool:
    """False inside a function's container, True everywhere else."""
    return container is None


def this_input() -> InputContext | None:
    """The input that the current task or thread works on, as far as it can be told."""
    return current_input.get() or lone_input


def current_function_call_id() -> str | None:
    """The id of the call that runs here, or None outside a container."""
    here = this_input()
    return here.call_id if here else None


def current_input_id() -> str | None:
    """The id of the input that runs here, or None outside a container."""
    here = this_input()
    return here.input_id if here else None


def set_client(client: Client | None) -> Client | None:
    """Make `client` the current one and give back the one before."""
    global _client
    previous, _client = _client, client
    return previous


@contextmanager
def using(client: Client) -> Iterator[None]:
    """Ask another engine in this block: `app.deploy()` sends its parts to the one that hosts it."""
    token = _instead.set(client)
    try:
        yield
    finally:
        _instead.reset(token)


def get_client() -> Client:
    """The current client; outside containers the ambient engine is started if there is none."""
    client = _instead.get() or _client
    if client is not None:
        return client
    with _lock:
        if _client is None:
            # The one step upwards between rooms: a script without `minimodal run` or `app.run()`
            # hosts the platform itself, and the host is the composition root.
            set_client(importlib.import_module("minimodal.host").start_ambient())
        assert _client is not None
        return _client


def running_client() -> Client | None:
    """The current client if there is one; nothing is started."""
    return _client


def ask(
    op: str,
    payload: Payload = EMPTY,
    *,
    wait: float | None = None,
    client: Client | None = None,
    **fields: Any,
) -> Pending[Reply]:
    """The awaitable form of `Client.ask`, on the current client where none is given.

    `wait` bounds the wait, in seconds.
    """
    asked = client or get_client()
    here = this_input()
    if here is not None:
        fields.setdefault("parent", here.call_id)  # who waits lends its slot

    def start(answer: Callable[[Any], None]) -> Abandon:
        return asked.ask(op, fields, payload, answer)

    return Pending(start, wait)
