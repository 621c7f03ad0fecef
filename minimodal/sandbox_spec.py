"""What a sandbox is, as plain data: made by `Sandbox.create`, read by the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .types import Resources, VolumeMount

MAX_TAGS = 50
DEFAULT_RESOURCES = Resources()


@dataclass(frozen=True, slots=True)
class Terminal:
    """The size of a pty."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class ProcessSpec:
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
class SandboxSpec:
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
