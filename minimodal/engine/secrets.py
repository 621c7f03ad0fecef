"""Secrets in an engine: what handles ask for, and the variables of a container or a build step.

Inline secrets are in memory; those of a deployed app are stored too. Values leave this module only
for a container that was declared with them; there is no operation that reads one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from anyio import to_thread

from minimodal.errors import InvalidError, NotFoundError, ResourceExhaustedError
from minimodal.home import Home
from minimodal.named import check_name
from minimodal.protocols import Reply
from minimodal.secret import check_variables
from minimodal.types import FunctionSpec, Payload

from .ops import Caller, Fields, Ops
from .secret_files import SecretFiles, SecretRecord

MAX_INLINE = 10_000  # secrets in memory


class Secrets:
    """The secrets of one home, as one engine sees them."""

    def __init__(self, home: Home) -> None:
        self.files = SecretFiles(home)
        self._inline: dict[str, dict[str, str]] = {}

    def add_to(self, ops: Ops) -> None:
        for name in ("inline", "open", "create", "set", "update", "list", "info", "remove"):
            ops.add(f"secret.{name}", getattr(self, f"_{name}_op"))

    async def resolve(self, ids: Sequence[str]) -> dict[str, str]:
        """The variables of several secrets, later ones over earlier ones.

        Raises NotFoundError for one that is gone, StateError where the key does not fit.
        """
        found: dict[str, str] = {}
        for secret_id in ids:
            found |= await self._values(secret_id)
        return found

    async def keep(self, specs: Iterable[FunctionSpec]) -> None:
        """A deployed app outlives this engine, and so must the secrets that it gave inline."""
        for secret_id in {each for spec in specs for each in _named_by(spec)}:
            values = self._inline.get(secret_id)
            if values is not None:
                await to_thread.run_sync(self.files.keep, secret_id, values)

    async def _values(self, secret_id: str) -> dict[str, str]:
        inline = self._inline.get(secret_id)
        if inline is not None:
            return inline
        try:
            return await to_thread.run_sync(self.files.read, secret_id)
        except NotFoundError:
            if not secret_id.startswith("si-"):
                raise
            raise NotFoundError(
                "a secret of given values (Secret.from_dict, from_dotenv, …) is gone with the engine "
                "that it was given to; deploy the app, or store it: `minimodal secret create`"
            ) from None

    # --- operations --------------------------------------------------------------------------------

    async def _inline_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        values = _unpacked(payload)
        secret_id = await to_thread.run_sync(self.files.id_for, values)
        if secret_id not in self._inline and len(self._inline) >= MAX_INLINE:
            raise ResourceExhaustedError(
                f"more than {MAX_INLINE} different secrets of given values"
            )
        self._inline[secret_id] = values
        return Reply({"id": secret_id})

    async def _open_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        name, required = check_name("secret", fields["name"]), fields.get("required") or ()
        record = await to_thread.run_sync(self.files.find, name)
        if required:
            values = await to_thread.run_sync(self.files.read, record.id)
            missing = sorted(set(required) - set(values))
            if missing:
                raise InvalidError(f"the secret {name!r} has no {', '.join(missing)}")
        return Reply({"id": record.id})

    async def _create_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        create = partial(self.files.create, exist_ok=bool(fields.get("exist_ok")))
        return Reply({"id": await to_thread.run_sync(create, _name_of(fields), _unpacked(payload))})

    async def _set_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply(
            {"id": await to_thread.run_sync(self.files.set, _name_of(fields), _unpacked(payload))}
        )

    async def _update_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        removed = tuple(fields["removed"])
        await to_thread.run_sync(self.files.update, _name_of(fields), _unpacked(payload), removed)
        return Reply({})

    async def _list_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply(
            {"objects": [_shown(each) for each in await to_thread.run_sync(self.files.list)]}
        )

    async def _info_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        for record in await to_thread.run_sync(self.files.list):
            if record.id == fields["id"]:
                return Reply(_shown(record))
        raise NotFoundError(f"there is no stored secret {fields['id']}")

    async def _remove_op(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        remove = partial(self.files.remove, missing_ok=bool(fields.get("missing_ok")))
        await to_thread.run_sync(remove, _name_of(fields))
        return Reply({})


def _named_by(spec: FunctionSpec) -> Iterable[str]:
    yield from spec.secrets
    for layer in spec.image.layers if spec.image else ():
        yield from getattr(layer, "secrets", ())
        if getattr(layer, "secret", None):
            yield layer.secret


def _name_of(fields: Fields) -> str:
    return check_name("secret", fields["name"])


def _unpacked(payload: Payload) -> dict[str, str]:
    """From anybody, a hostile container too: checked again."""
    return check_variables("secret", json.loads(bytes(payload.data)))


def _shown(record: SecretRecord) -> dict[str, Any]:
    return {"id": record.id, "name": record.name, "created": record.created}
