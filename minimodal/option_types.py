"""What the decorators' keyword arguments are to editors and type checkers.

A module of its own, because Python is slow to make these classes and no container needs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from .image import Image
    from .policy import Cron, Period, Retries
    from .secret import Secret
    from .volume import Volume


class ClsOptions(TypedDict, total=False):
    """What `@app.cls` takes, for editors and type checkers; the decorators' docstrings explain it."""

    image: Image | None
    secrets: Sequence[Secret] | None
    env: Mapping[str, str | None] | None
    volumes: Mapping[Any, Volume] | None
    cpu: float | tuple[float, float] | None
    memory: int | tuple[int, int] | None
    gpu: str | Sequence[str] | None
    timeout: float
    startup_timeout: float | None
    retries: int | Retries | None
    min_containers: int | None
    max_containers: int | None
    buffer_containers: int | None
    scaledown_window: float | None
    single_use_containers: bool
    serialized: bool
    block_network: bool
    runtime: str | None
    cloud: Any
    region: Any
    routing_region: Any
    nonpreemptible: Any
    proxy: Any
    i6pn: Any
    experimental_options: Any
    restrict_modal_access: Any
    enable_memory_snapshot: Any
    network_file_systems: Any
    ephemeral_disk: Any
    include_source: Any


class FunctionOptions(ClsOptions, total=False):
    """What `@app.function` takes."""

    schedule: Cron | Period | None
    name: str | None
    is_generator: bool | None
