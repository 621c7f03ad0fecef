"""What a sandbox is, as plain data: made by `Sandbox.create`, read by the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from .errors import InvalidError
from .types import Resources, VolumeMount

MAX_TAGS = 50
DEFAULT_RESOURCES = Resources()


class Terminal(NamedTuple):
    """The size of a pty."""

    rows: int = 24
    columns: int = 80


class ProcessSpec(NamedTuple):
    """One process inside a sandbox. `tool`: the engine makes the command (see backends/inside.py)."""

    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()  # ids, later ones win
    workdir: str | None = None
    timeout: float | None = None  # seconds
    stdout: str = "pipe"  # or "log", "null"
    stderr: str = "pipe"
    terminal: Terminal | None = None
    tool: str = ""  # JSON request of an operation on files


@dataclass(frozen=True, slots=True)
class Probe:
    """How a sandbox is asked whether it is ready: `Sandbox.create(…, readiness_probe=Probe.with_tcp(80))`.

    Made by `with_tcp` and `with_exec`. It is asked while `Sandbox.wait_until_ready` waits, with
    `interval` seconds from one answer to the next question.
    """

    command: tuple[str, ...] = ()
    port: int | None = None
    interval: float = 0.1

    @classmethod
    def with_tcp(cls, port: int, *, interval_ms: int = 100) -> Probe:
        """Ready when something listens on `port` inside. `interval_ms`: milliseconds between two tries.

        Raises InvalidError.
        """
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
            raise InvalidError(f"Probe.with_tcp: a port is a number from 1 to 65535, not {port!r}")
        return cls(port=port, interval=_seconds(interval_ms))

    @classmethod
    def with_exec(cls, *argv: str, interval_ms: int = 100) -> Probe:
        """Ready when the program `argv` (no shell) ends with exit code 0 inside.

        `interval_ms`: milliseconds between two tries. Raises InvalidError.
        """
        if not argv or not all(isinstance(word, str) and "\0" not in word for word in argv):
            raise InvalidError("Probe.with_exec takes a program and its arguments as texts")
        return cls(command=argv, interval=_seconds(interval_ms))


def _seconds(interval_ms: object) -> float:
    if isinstance(interval_ms, bool) or not isinstance(interval_ms, int) or interval_ms <= 0:
        raise InvalidError(f"interval_ms is a number of milliseconds above 0, not {interval_ms!r}")
    return interval_ms / 1000


class SandboxSpec(NamedTuple):
    """One sandbox. Without a command it stays until it is terminated, or its time is over."""

    app: str | None  # id; None: of no app
    app_name: str
    main: ProcessSpec
    image: Any = None  # layers.ImageSpec
    name: str | None = None
    tags: tuple[tuple[str, str], ...] = ()
    resources: Resources = DEFAULT_RESOURCES
    volumes: tuple[VolumeMount, ...] = ()
    timeout: float = 300.0  # seconds that it lives
    idle_timeout: float | None = None
    block_network: bool = False
    ports: tuple[int, ...] = ()
    runtime: str | None = None
    probe: Probe | None = None
