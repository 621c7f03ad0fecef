"""Secrets at rest: one encrypted file for each, and the rotation of their key.

Blocking and thread-safe, for engines and for commands without one: a lock file keeps them apart. A
file's header (id, name, times) is in the clear, names and values of its variables are not. Each
change is a whole new file in the old one's place.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from minimodal.errors import AlreadyExistsError, NotFoundError, StateError
from minimodal.failpoints import failpoint
from minimodal.home import Home
from minimodal.secret import check_variables
from minimodal.types import new_id

from .file_lock import locked, write_whole
from .secret_box import VARIABLE, Keys, load_keys, make_keys, save_keys


class SecretRecord(NamedTuple):
    """The header of a secret's file. `name` None: one that a deployed app gave inline."""

    id: str
    name: str | None
    created: float  # wall clock
    updated: float
    key: str  # id of the key that sealed it


class SecretFiles:
    """The secrets of one home."""

    def __init__(self, home: Home, environ: Mapping[str, str] | None = None) -> None:
        self._directory = home.secrets
        self._key_file = home.key_file
        self._environ = os.environ if environ is None else environ
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = self._directory / ".lock"

    def list(self) -> tuple[SecretRecord, ...]:
        """The secrets that have a name, oldest first."""
        with locked(self._lock, shared=True):
            records = [record for record, _ in self._all() if record.name is not None]
        return tuple(sorted(records, key=lambda record: record.created))

    def find(self, name: str) -> SecretRecord:
        with locked(self._lock, shared=True):
            return self._named(name)[0]

    def read(self, secret_id: str) -> dict[str, str]:
        """The variables. Raises NotFoundError, StateError."""
        with locked(self._lock, shared=True):
            path = self._directory / f"{secret_id}.json"
            if "/" in secret_id or not path.exists():
                raise NotFoundError(f"there is no secret {secret_id}: was it deleted?")
            return self._open(*_load(path))

    def create(self, name: str, values: Mapping[str, str], *, exist_ok: bool = False) -> str:
        with locked(self._lock):
            found = self._find(name)
            if found is None:
                return self._write(self._fresh(name), values)
            if exist_ok:
                return found[0].id
            raise AlreadyExistsError(f"there is a secret {name!r} already; `set` replaces it")

    def set(self, name: str, values: Mapping[str, str]) -> str:
        """Create it, or replace all its variables."""
        with locked(self._lock):
            found = self._find(name)
            return self._write(found[0] if found else self._fresh(name), values)

    def update(self, name: str, changed: Mapping[str, str], removed: tuple[str, ...]) -> None:
        with locked(self._lock):
            record, sealed = self._named(name)
            values = {**self._open(record, sealed), **changed}
            kept = {key: value for key, value in values.items() if key not in removed}
            self._write(record, check_variables(f"secret {name!r}", kept))

    def keep(self, secret_id: str, values: Mapping[str, str]) -> None:
        """Store what an app gave inline, under the id that it has already."""
        with locked(self._lock):
            if not (self._directory / f"{secret_id}.json").exists():
                self._write(self._fresh(None, secret_id), values)

    def remove(self, name: str, *, missing_ok: bool = False) -> None:
        with locked(self._lock):
            found = self._find(name)
            if found is not None:
                (self._directory / f"{found[0].id}.json").unlink()
            elif not missing_ok:
                raise NotFoundError(f"there is no secret {name!r}")

    def id_for(self, values: Mapping[str, str]) -> str:
        """The id of an inline secret: the same for the same variables."""
        text = json.dumps(sorted(values.items())).encode()
        with locked(self._lock):
            return f"si-{self._keys().name_for(text)}"

    # --- rotation ----------------------------------------------------------------------------------

    def rotate(self) -> int:
        """Encrypt everything with a new key; how many secrets there are.

        Interrupted anywhere it leaves both keys in the key file and each secret readable; the next
        start, or the next rotation, goes on. With MINIMODAL_SECRET_KEY, put the new key before the
        old one there; this then moves all secrets to the first.
        """
        with locked(self._lock):
            self._finish_rotation()
            if not self._environ.get(VARIABLE):
                save_keys(self._key_file, self._keys().with_new())
                failpoint("secrets.rotate.added")
            return self._finish_rotation()

    def finish_rotation(self) -> None:
        """Go on with a rotation that was interrupted. Cheap where there is none.

        A key file that cannot be used is an error for who uses a secret, and not for an engine's start.
        """
        with locked(self._lock), contextlib.suppress(StateError):
            if self._key_file.exists() and self._keys().rotating:
                self._finish_rotation()

    def _finish_rotation(self) -> int:
        keys = self._keys()
        count = 0
        for record, sealed in self._all():
            count += 1
            if record.key != keys.current_id:
                self._write(record, self._open(record, sealed), record.updated)
                failpoint("secrets.rotate.file")
        if keys.rotating and not self._environ.get(VARIABLE):
            save_keys(self._key_file, keys.only_current())
            failpoint("secrets.rotate.done")
        return count

    # --- files; the lock is held -------------------------------------------------------------------

    def _keys(self) -> Keys:
        keys = load_keys(self._key_file, self._environ)
        if keys is not None:
            return keys
        if next(self._paths(), None) is not None:
            raise StateError(
                f"the key file {self._key_file} is missing, and secrets were encrypted with it. Put "
                f"it back, or remove {self._directory} and create the secrets again."
            )
        return make_keys(self._key_file)

    def _paths(self) -> Any:
        return self._directory.glob("s*.json")

    def _all(self) -> Any:
        for path in sorted(self._paths()):
            yield _load(path)

    def _find(self, name: str) -> tuple[SecretRecord, bytes] | None:
        return next((found for found in self._all() if found[0].name == name), None)

    def _named(self, name: str) -> tuple[SecretRecord, bytes]:
        found = self._find(name)
        if found is None:
            raise NotFoundError(
                f"there is no secret {name!r}; make it with `minimodal secret create {name} KEY=-`"
            )
        return found

    @staticmethod
    def _fresh(name: str | None, secret_id: str | None = None) -> SecretRecord:
        now = time.time()
        return SecretRecord(secret_id or new_id("st"), name, now, now, "")

    def _open(self, record: SecretRecord, sealed: bytes) -> dict[str, str]:
        what = f"the secret {record.name or record.id}"
        content = json.loads(self._keys().open(sealed, record.key, what))
        if content["id"] != record.id:
            raise StateError(f"{what} is damaged: it holds another one's contents")
        values: dict[str, str] = content["values"]
        return values

    def _write(
        self, record: SecretRecord, values: Mapping[str, str], updated: float | None = None
    ) -> str:
        keys = self._keys()
        content = json.dumps({"id": record.id, "values": dict(values)}).encode()
        header = {
            "id": record.id,
            "name": record.name,
            "created": record.created,
            "updated": time.time() if updated is None else updated,
            "key": keys.current_id,
        }
        box = base64.b64encode(keys.seal(content)).decode()
        failpoint("secrets.write.sealed")
        text = json.dumps({**header, "box": box}, indent=1).encode()
        write_whole(self._directory / f"{record.id}.json", text)
        failpoint("secrets.write.renamed")
        return record.id


def _load(path: Path) -> tuple[SecretRecord, bytes]:
    try:
        fields = json.loads(path.read_bytes())
        record = SecretRecord(*(fields[name] for name in SecretRecord._fields))
        return record, base64.b64decode(fields["box"])
    except (ValueError, KeyError) as error:
        raise StateError(f"the secret's file {path} is damaged; remove it: {error!r}") from error
