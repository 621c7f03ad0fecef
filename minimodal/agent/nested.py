"""The client inside a container: other functions and objects are reached through the same engine."""

from __future__ import annotations

from minimodal.connection import Connection
from minimodal.context import set_client


def install_client(path: str) -> None:
    """Make the engine at `path` the current client. Connects when it is first used."""
    set_client(Connection(path))
