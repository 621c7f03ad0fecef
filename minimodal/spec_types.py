"""The records that only the engine and its backends need: specs of functions and containers.

Import them from `minimodal.types`, which loads this module on demand.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .option_records import Batching, ClassShape, RetryPolicy, ScheduleSpec
from .types import Payload


class Resources(NamedTuple):
    """What one container asks for (`cpu`, `memory`) and may use at most (`*_limit`; None: unlimited)."""

    cpu: float = 0.125
    memory: int = 128  # MiB
    cpu_limit: float | None = None
    memory_limit: int | None = None  # MiB
    gpu: str | None = None
    pids_limit: int = 4096


class Scaling(NamedTuple):
    """Bounds of one function's pool; seconds."""

    min_containers: int = 0
    max_containers: int | None = None
    buffer_containers: int = 0
    scaledown_window: float = 60.0


_RESOURCES, _RETRIES, _SCALING = Resources(), RetryPolicy(), Scaling()


class ByName(NamedTuple):
    """The container imports `module` from the source snapshot and takes `qualname` from it."""

    module: str
    qualname: str
    sources: str  # digest of the snapshot in Home.sources


class ByValue(NamedTuple):
    """The container unpickles the function from a blob; only within one Python minor version."""

    blob: str  # digest of the cloudpickle in Home.blobs
    python: str  # "3.11"
    sources: str | None = None


class VolumeMount(NamedTuple):
    target: str
    volume: str  # volume id
    read_only: bool = False
    sub_path: str = ""


class WebEndpoint(NamedTuple):
    """How the gateway presents a function. `kind`: fastapi, asgi, wsgi, server, or simple (the seed's)."""

    kind: str
    label: str
    path: str = "/"
    method: str = "GET"
    docs: bool = False
    requires_auth: bool = False
    port: int | None = None
    startup_timeout: float = 5.0


class WebRoute(NamedTuple):
    """Where a request to an endpoint goes: a function's key, and the method of a class."""

    key: str
    method: str
    endpoint: WebEndpoint
    app: str  # name
    function: str
    timeout: float


class FunctionSpec(NamedTuple):
    """All that the engine needs to run a function. `key` is what a `Call` names it by."""

    app: str  # app id (ephemeral) or deployed name
    name: str  # "f", "Cls" (a class is one pool for all its methods)
    target: ByName | ByValue
    image: Any = None  # layers.ImageSpec; Any keeps this module free of siblings
    variant: str = ""  # distinguishes with_options()/parameter sets of one name: own pool
    resources: Resources = _RESOURCES
    retries: RetryPolicy = _RETRIES
    scaling: Scaling = _SCALING
    timeout: float = 300.0  # seconds per attempt, execution only
    startup_timeout: float | None = None  # import and @enter; None: same as timeout
    max_inputs: int = 1  # @concurrent
    target_inputs: int | None = None
    batching: Batching | None = None
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # secret ids, later ones win
    volumes: tuple[VolumeMount, ...] = ()
    block_network: bool = False
    single_use: bool = False
    is_generator: bool = False
    is_class: bool = False
    shape: ClassShape | None = None  # of a class
    parameters: Payload | None = None  # constructor arguments of a class, pickled
    schedule: ScheduleSpec | None = None
    web: WebEndpoint | None = None
    web_methods: tuple[tuple[str, WebEndpoint], ...] = ()  # of a class
    runtime: str | None = None  # OCI runtime on request

    @property
    def key(self) -> str:
        base = f"{self.app}/{self.name}"
        return f"{base}~{self.variant}" if self.variant else base


# --- where calls run ------------------------------------------------------------------------------


class Mount(NamedTuple):
    """Something of the home that a container sees at `target`.

    kind `sources`: name is a snapshot digest. `volume`: name is a volume view. `file`: name is the
    digest of a blob. `local`: name is an absolute path of the user's own (images' add_local_*).
    """

    kind: str
    name: str
    target: str
    read_only: bool = True


class ImageRef(NamedTuple):
    """A built image, as its backend names it, with what the container start needs from it."""

    digest: str
    name: str  # docker: tag; bubblewrap: id of the layer stack; process: id of the environment
    python: str = "python3"  # the interpreter inside
    env: tuple[tuple[str, str], ...] = ()
    workdir: str | None = None
    mounts: tuple[Mount, ...] = ()  # add_local_*(copy=False)
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container to start. `command` None starts the agent; a Sandbox gives its own command."""

    id: str
    label: str  # for people: the function's name
    image: ImageRef
    resources: Resources = _RESOURCES
    env: Mapping[str, str] = field(default_factory=dict)  # never secrets: they go through the agent
    mounts: tuple[Mount, ...] = ()
    block_network: bool = False
    private_network: bool = False  # ports of its own: a server's, a sandbox's
    runtime: str | None = None
    command: tuple[str, ...] | None = None
    workdir: str | None = None


class ExitReason(NamedTuple):
    """Why a container is gone. `detail` is for the user: the tail of its stderr, the daemon's words."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False
    detail: str = ""
    passing: bool = False  # what kept it from starting may be over: another may start

    def __str__(self) -> str:
        if self.oom:
            return "it ran out of memory"
        if self.signal is not None:
            return f"it was killed by {_signal_name(self.signal)}"
        if self.code is not None:
            return f"it exited with code {self.code}"
        return self.detail or "it went away"


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


class Capabilities(NamedTuple):
    """What a backend isolates and enforces, truthfully. Each text is shown by `minimodal doctor`."""

    name: str
    files: str
    processes: str
    network: str
    memory: str
    cpu: str
    pids: str
    gpu: str = ""  # empty: it can give none
    notes: tuple[str, ...] = ()
