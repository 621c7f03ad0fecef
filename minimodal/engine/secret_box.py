"""The keys that secrets are encrypted with, and sealing and opening with them.

The only importer of nacl. Owns the key file: one key in base64 on each line, the first is the one
that seals; further ones are there while a rotation has not ended, and open what it has not reached.
`MINIMODAL_SECRET_KEY`, in the same form with commas between, takes the file's place.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from minimodal.errors import StateError

from .file_lock import sync_directory, write_whole

KEY_BYTES = 32
VARIABLE = "MINIMODAL_SECRET_KEY"


class Keys:
    """One or more keys; the first seals, all open. `where` names their source, for messages."""

    def __init__(self, keys: tuple[bytes, ...], where: str) -> None:
        self._keys = keys
        self.where = where

    def __repr__(self) -> str:
        return f"<Keys of {self.where}>"

    @property
    def rotating(self) -> bool:
        return len(self._keys) > 1

    @property
    def current_id(self) -> str:
        return _id_of(self._keys[0])

    def seal(self, data: bytes) -> bytes:
        from nacl.secret import SecretBox

        return bytes(SecretBox(self._keys[0]).encrypt(data))

    def open(self, sealed: bytes, key_id: str, what: str) -> bytes:
        """Raises StateError where no key fits, or the bytes were changed."""
        from nacl.exceptions import CryptoError
        from nacl.secret import SecretBox

        key = next((key for key in self._keys if _id_of(key) == key_id), None)
        if key is None:
            raise StateError(
                f"{what} was encrypted with another key than that of {self.where}. Put the earlier "
                "key back, or delete the secret and create it again."
            )
        try:
            return bytes(SecretBox(key).decrypt(sealed))
        except CryptoError as error:
            raise StateError(f"{what} is damaged; delete it and create it again") from error

    def name_for(self, data: bytes) -> str:
        """A name that equal data always gets, and that tells nothing about them without the key."""
        key = hashlib.blake2b(self._keys[0], person=b"minimodal-name").digest()
        return hmac.new(key, data, hashlib.sha256).hexdigest()[:24]

    def with_new(self) -> Keys:
        return Keys((secrets.token_bytes(KEY_BYTES), *self._keys), self.where)

    def only_current(self) -> Keys:
        return Keys(self._keys[:1], self.where)

    def text(self) -> bytes:
        return b"".join(base64.b64encode(key) + b"\n" for key in self._keys)


def load_keys(path: Path, environ: Mapping[str, str]) -> Keys | None:
    """The keys, or None where there is no file yet. Raises StateError with the way out."""
    given = environ.get(VARIABLE)
    if given:
        return _parse(given.split(","), VARIABLE)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"the key file {path} cannot be read: {error.strerror}") from error
    with open(fd, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_mode & 0o077:
            raise StateError(
                f"the key file {path} can be read by others (mode {status.st_mode & 0o777:04o}). If "
                f"nobody did: chmod 600 {path}; else also change the secrets and run `minimodal "
                "secret rotate`."
            )
        text = file.read(64 * 1024).decode("ascii", "replace")
    return _parse(text.split("\n"), f"the key file {path}")


def make_keys(path: Path) -> Keys:
    """A new key file, unless another process was faster: then its keys."""
    keys = Keys((secrets.token_bytes(KEY_BYTES),), f"the key file {path}")
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_whole(part, keys.text())
    try:
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
    sync_directory(path.parent)
    found = load_keys(path, {})
    assert found is not None
    return found


def save_keys(path: Path, keys: Keys) -> None:
    write_whole(path, keys.text())


def _parse(parts: list[str], where: str) -> Keys:
    keys: list[bytes] = []
    for part in filter(None, (part.strip() for part in parts)):
        try:
            key = base64.b64decode(part, validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise StateError(
                f"{where} holds what is no key: a key is {KEY_BYTES} random bytes in base64. Put the "
                "earlier one back; `head -c 32 /dev/urandom | base64` makes a new one."
            )
        keys.append(key)
    if not keys:
        raise StateError(f"{where} holds no key. Put the earlier one back, or remove it.")
    return Keys(tuple(keys), where)


def _id_of(key: bytes) -> str:
    return hashlib.blake2b(key, digest_size=6, person=b"minimodal-key").hexdigest()
