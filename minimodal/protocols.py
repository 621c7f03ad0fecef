"""The seams: `Client` (what users' objects talk to), `Backend` and `Container` (where code runs).

Everything above `Backend` is the same on Docker, in bubblewrap, in plain processes, and later on
other machines. Implementations never import each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .types import EMPTY, Call, Outcome, Payload

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractAsyncContextManager

    from .layers import ImageSpec
    from .types import Capabilities, ContainerSpec, ExitReason, ImageRef


class Reply(NamedTuple):
    """The answer to `Client.ask`: JSON-able fields and an opaque payload."""

    fields: Mapping[str, Any]
    payload: Payload = EMPTY


Done = Callable[[Outcome], None]
Answered = Callable[[Reply | BaseException], None]
Abandon = Callable[[], None]


class Client(Protocol):
    """A way to an engine: in this process, or at the other end of a socket.

    Every method may be called from any thread and returns at once; the callback runs later, once,
    on a thread of the client's own, and must be quick. `face.py` makes both the blocking and the
    `await` form of it. All named objects (volumes, secrets, dicts, queues, sandboxes, apps) are
    reached by `ask` alone, so an object is added without touching this seam or the wire.
    """

    def is_alive(self) -> bool:
        """Whether its engine can be asked."""
        ...

    def run(self, call: Call, done: Done) -> Abandon:
        """Run an attached call. The returned function cancels it."""
        ...

    def run_blocking(self, call: Call, done: Done) -> Abandon:
        """As `run`, for a thread that does nothing else until the answer: it may be kept for a
        millisecond, and `done` may be called on it before this returns."""
        ...

    def ask(
        self,
        op: str,
        fields: Mapping[str, Any],
        payload: Payload,
        answered: Answered,
    ) -> Abandon:
        """Ask for `op` (such as "queue.get"). Fields are JSON-able. Errors come as exceptions."""
        ...


class Container(Protocol):
    """A running container. It exists only inside the block of `Backend.launch`."""

    @property
    def id(self) -> str: ...

    async def wait(self) -> ExitReason:
        """Wait until it has ended, however that happened. May be called more than once."""
        ...

    async def kill(self) -> None:
        """End it now. Not an error if it has ended."""
        ...

    def oom_kills(self) -> int:
        """How many of its processes were killed over its memory limit; 0 where nobody counts."""
        ...

    async def exec(
        self, command: tuple[str, ...], *, env: Mapping[str, str], workdir: str | None
    ) -> Process:
        """Start one more process inside it (for `Sandbox.exec` and `minimodal shell`)."""
        ...

    async def dial(self, port: int) -> Any:
        """A connection (anyio ByteStream) to a TCP port that something inside listens on.

        Raises OSError where nobody does. Works without a network too: it begins inside.
        """
        ...

    async def snapshot(self, image: ImageSpec) -> None:
        """Keep its files as the last layer of `image`, whose others are those that it runs on.

        Raises ConflictError where containers have no files of their own.
        """
        ...


class Process(Protocol):
    """A process started by `Container.exec`: byte streams, an exit code, and a way to end it."""

    stdin: Any  # anyio ByteSendStream
    stdout: Any  # anyio ByteReceiveStream
    stderr: Any  # anyio ByteReceiveStream

    async def wait(self) -> int: ...

    async def kill(self) -> None:
        """End it now, and what it started."""
        ...

    async def aclose(self) -> None:
        """End it if it runs, and close its streams. Not an error if that was done."""
        ...


Report = Callable[[str], None]  # one line of build output, without its newline

ProtocolFactory = Callable[[], "asyncio.BaseProtocol"]


class Backend(Protocol):
    """Where containers run. One per engine; opened and closed by host.py.

    Each backend's module has `open_backend(home, config)`, an async context manager that gives one,
    or raises RuntimeUnavailable with the reason and the way out.
    """

    @property
    def name(self) -> str: ...

    @property
    def file_owner(self) -> int | None:
        """The uid that must own what a container may write; None: whoever the engine is."""
        ...

    def describe(self) -> Capabilities:
        """What is isolated and enforced here, truthfully."""
        ...

    async def build(self, image: ImageSpec, report: Report) -> ImageRef:
        """Build what is missing of an image and name the result. Raises BuildError."""
        ...

    def launch(
        self, spec: ContainerSpec, connect: ProtocolFactory
    ) -> AbstractAsyncContextManager[Container]:
        """Start a container; leaving the block means that it is gone.

        `connect` is called for each byte stream that the agent opens and gives the protocol that
        reads it (on a Unix socket in a directory mounted for this container alone, or its
        equivalent). Raises RuntimeUnavailable, BuildError (image gone) or LaunchError.
        """
        ...

    def note_python(self, image: ImageRef, version: str) -> None:
        """A container of the image has said which Python it runs, such as "3.12"."""
        ...
