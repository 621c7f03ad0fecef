"""The client inside a container: other functions and objects are reached through the same engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minimodal.connection import Connection
from minimodal.context import set_client
from minimodal.errors import InvalidError
from minimodal.types import Payload

if TYPE_CHECKING:
    from minimodal.protocols import Abandon, Answered

_STARTS = frozenset({"call.run", "call.spawn", "call.open"})


class NestedClient(Connection):
    """Refuses calls while the user's module is being imported.

    Such a call needs a container, which imports the module, which calls, without end: the caller
    would wait for its own import.
    """

    importing = False

    def ask(
        self, op: str, fields: Mapping[str, Any], payload: Payload, answered: Answered
    ) -> Abandon:
        if self.importing and op in _STARTS:
            name = str(fields["function"]).rpartition("/")[2]
            raise InvalidError(
                f"{name} is called while its container imports the module, which would start another "
                "container, and so on. Put the call into an @app.local_entrypoint(), or below "
                '`if __name__ == "__main__":`'
            )
        return super().ask(op, fields, payload, answered)


@contextmanager
def importing(path: str) -> Iterator[None]:
    """Make the engine at `path` the current client; the user's code is loaded in the block."""
    client = NestedClient(path)
    set_client(client)
    client.importing = True
    try:
        yield
    finally:
        client.importing = False
