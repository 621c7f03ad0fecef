"""The records that cross rooms: plain, frozen data. Nothing here does I/O or imports a sibling.

A record names a thing by id, name or digest, never by a host path, file descriptor or pid, so that
what is above `Backend` does not notice on which machine a container runs.

Containers import this module at every cold start, and making a dataclass costs half a millisecond:
what only the engine needs is in spec_types.py, what some scripts need in option_records.py; each is
loaded when one of its names is asked for here.
"""

from __future__ import annotations

import itertools
import os
from enum import Enum
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

Buffer = bytes | bytearray | memoryview


def new_id(prefix: str) -> str:
    """An id such as `fc-3f2a…`: 48 random bits of this process and a count, behind the kind."""
    return f"{prefix}-{_ids.base}{next(_ids.count):04x}"


class _Ids:
    """Random once for each process: a system call for each id would cost more than the id."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self.base = os.urandom(6).hex()
        self.count = itertools.count()


_ids = _Ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.renew)


class Payload(NamedTuple):
    """A pickled value: the pickle itself and its large buffers, which travel beside it.

    A buffer that is `bytes` arrives as `bytes`; any other, also one that is read-only here, arrives
    as memory to write to.
    """

    data: Buffer
    buffers: tuple[Buffer, ...] = ()

    @property
    def nbytes(self) -> int:
        if not self.buffers:
            return len(self.data)
        return len(self.data) + sum(memoryview(b).nbytes for b in self.buffers)


EMPTY = Payload(b"")


# --- what a call is -------------------------------------------------------------------------------


class CallState(Enum):
    QUEUED = "queued"  # waits for a slot, or for its retry's time
    RUNNING = "running"  # an executor has it
    OK = "ok"  # finished with a value
    ERROR = "error"  # the user's code raised, or its value could not travel
    TIMEOUT = "timeout"  # an attempt ran longer than the function's timeout
    CANCELLED = "cancelled"
    LOST = "lost"  # its containers went away more often than we retry

    @property
    def finished(self) -> bool:
        return self not in (CallState.QUEUED, CallState.RUNNING)


class Call:
    """One input on its way. Created by the caller, owned by the engine after `Client.run`."""

    # Written out: dataclasses import inspect, which is a tenth of a cold start.
    __slots__ = (
        "depth",
        "durable",
        "function",
        "id",
        "method",
        "parent",
        "payload",
        "priority",
        "stream",
        "user",
        "web",
    )

    def __init__(
        self,
        id: str,
        function: str,  # FunctionSpec.key
        payload: Payload,  # pickled (args, kwargs)
        method: str = "",  # method of a class
        user: str = "default",
        priority: int = 0,  # higher first, within one user
        parent: str | None = None,  # call id of the caller inside a container
        depth: int = 0,  # nesting, bounded by the engine
        stream: bool = False,  # a generator: items are read with call.next
        web: bool = False,  # a web request: payload and items are asgi_messages, more comes as INPUT
        durable: bool = False,  # recorded in the store before it is accepted
    ) -> None:
        self.id = id
        self.function = function
        self.payload = payload
        self.method = method
        self.user = user
        self.priority = priority
        self.parent = parent
        self.depth = depth
        self.stream = stream
        self.web = web
        self.durable = durable

    def __repr__(self) -> str:
        return f"<Call {self.id} of {self.function}>"


class Failure(NamedTuple):
    """Why a call did not return a value, in words, with the pickled exception where there is one."""

    type: str  # qualified name of the exception's class
    message: str
    traceback: str = ""
    payload: Payload | None = None  # pickled RemoteException record; only the caller unpickles it


class Outcome(NamedTuple):
    """How a call ended. Exactly one of `value` (state OK) and `failure` is set."""

    state: CallState
    value: Payload | None = None
    failure: Failure | None = None
    attempts: int = 1


if TYPE_CHECKING:
    from .option_records import Batching as Batching
    from .option_records import ClassParameter as ClassParameter
    from .option_records import ClassShape as ClassShape
    from .option_records import RetryPolicy as RetryPolicy
    from .option_records import ScheduleSpec as ScheduleSpec
    from .spec_types import ByName as ByName
    from .spec_types import ByValue as ByValue
    from .spec_types import Capabilities as Capabilities
    from .spec_types import ContainerSpec as ContainerSpec
    from .spec_types import ExitReason as ExitReason
    from .spec_types import FunctionSpec as FunctionSpec
    from .spec_types import ImageRef as ImageRef
    from .spec_types import Mount as Mount
    from .spec_types import Resources as Resources
    from .spec_types import Scaling as Scaling
    from .spec_types import VolumeMount as VolumeMount
    from .spec_types import WebEndpoint as WebEndpoint
    from .spec_types import WebRoute as WebRoute

_OPTION_RECORDS = frozenset("Batching ClassParameter ClassShape RetryPolicy ScheduleSpec".split())
_SPEC_TYPES = frozenset(
    "ByName ByValue Capabilities ContainerSpec ExitReason FunctionSpec ImageRef Mount Resources "
    "Scaling VolumeMount WebEndpoint WebRoute".split()
)


def __getattr__(name: str) -> Any:
    if name not in _OPTION_RECORDS | _SPEC_TYPES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "option_records" if name in _OPTION_RECORDS else "spec_types"
    value = globals()[name] = getattr(import_module(f".{home}", __package__), name)
    return value
