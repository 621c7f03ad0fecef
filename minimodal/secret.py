"""`Secret`: environment variables that only the functions that name it are given.

A secret is a handle. Its values go to the engine once and come back to nobody: not to a listing, not
to another function, only into the environment of the containers that were declared with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from . import context
from .errors import InvalidError
from .face import both
from .named import Handle, Objects, check_name
from .types import Payload

MAX_VALUE_BYTES = 100 * 1024  # one variable: Linux starts no process with one of 128 KiB
MAX_SECRET_BYTES = 512 * 1024  # all variables of one secret

_VARIABLE = re.compile(r"[^=\0\s]+\Z")
RESERVED = "MINIMODAL_"  # the agent's own settings


def check_variables(what: str, values: object) -> dict[str, str]:
    """The variables without those that are None. Raises InvalidError, and never shows a value."""
    if not isinstance(values, Mapping):
        raise InvalidError(f"{what} takes a dict of variable to value, not {type(values).__name__}")
    kept: dict[str, str] = {}
    total = 0
    for name, value in values.items():
        if not isinstance(name, str) or not _VARIABLE.match(name):
            raise InvalidError(f"{what}: {name!r} cannot be the name of an environment variable")
        if name.startswith(RESERVED):
            raise InvalidError(
                f"{what}: {name}: names that start with {RESERVED} are the platform's"
            )
        if value is None:
            continue
        if not isinstance(value, str):
            raise InvalidError(
                f"{what}: the value of {name} must be a text, not {type(value).__name__}"
            )
        if "\0" in value:
            raise InvalidError(f"{what}: the value of {name} holds a NUL character")
        size = len(value.encode("utf-8", "surrogateescape"))
        total += size + len(name)
        if size > MAX_VALUE_BYTES or total > MAX_SECRET_BYTES:
            raise InvalidError(
                f"{what}: {name} makes it too large: a value may have {MAX_VALUE_BYTES >> 10} KiB, a "
                f"secret {MAX_SECRET_BYTES >> 10} KiB; put large data in a Volume"
            )
        kept[name] = value
    return kept


class _Inline:
    """Values that were given here. `read` may look at this machine; in a container it does not."""

    def __init__(self, values: Mapping[str, str | None]) -> None:
        self._values = check_variables("Secret.from_dict", values)

    def read(self) -> dict[str, str]:
        return self._values


class _Environ(_Inline):
    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise InvalidError("Secret.from_local_environ takes a list of variable names")
        missing = [name for name in names if name not in os.environ]
        if missing and context.is_local():
            raise InvalidError(
                f"Secret.from_local_environ: not set in this environment: {', '.join(missing)}"
            )
        found = {name: os.environ[name] for name in names} if context.is_local() else {}
        self._values = check_variables("Secret.from_local_environ", found)


class _Dotenv(_Inline):
    def __init__(self, path: str | os.PathLike[str] | None, filename: str) -> None:
        self._path, self._filename = path, filename

    def read(self) -> dict[str, str]:
        if not context.is_local():
            return {}
        return read_dotenv(self._find())

    def _find(self) -> Path:
        start = Path(self._path).expanduser() if self._path is not None else Path.cwd()
        start = start.absolute()
        if start.is_file():
            return start
        if not start.is_dir() and self._path is not None:
            if start.suffix or start.name.startswith("."):
                raise FileNotFoundError(f"Secret.from_dotenv: there is no file {start}")
            start = start.parent  # as Modal: a module's path names the directory that it is in
        for directory in (start, *start.parents):
            if (directory / self._filename).is_file():
                return directory / self._filename
        raise FileNotFoundError(
            f"Secret.from_dotenv: there is no {self._filename} in {start} or above it"
        )


class SecretObjects(Objects["Secret"]):
    """`Secret.objects`."""

    @both
    async def create(
        self,
        /,
        name: str,
        env_dict: Mapping[str, str | None],
        *,
        allow_existing: bool = False,
        environment_name: str | None = None,
    ) -> None:
        """Store a secret, encrypted. Raises AlreadyExistsError; `allow_existing` leaves it as it is."""
        del environment_name
        check_name("secret", name)
        values = check_variables("Secret.objects.create", env_dict)
        await context.ask("secret.create", _packed(values), name=name, exist_ok=allow_existing)


class Secret(Handle):
    """Environment variables for functions: `@app.function(secrets=[Secret.from_name("api")])`.

    Later secrets of a list win over earlier ones, and `env=` over all.
    """

    _kind: ClassVar[str] = "secret"
    objects: ClassVar[SecretObjects]

    _source: _Inline | None = None
    _required: tuple[str, ...] = ()

    @staticmethod
    def from_dict(env_dict: Mapping[str, str | None] | None = None) -> Secret:
        """A secret of the variables in `env_dict`; those whose value is None are left out.

        It is kept in memory for an app that runs, and encrypted for a deployed one. Raises
        InvalidError for names and values that an environment cannot hold.
        """
        return Secret._inline(_Inline({} if env_dict is None else env_dict))

    @staticmethod
    def from_local_environ(env_keys: Sequence[str]) -> Secret:
        """A secret of the variables `env_keys` of this process. Raises InvalidError for one that is not set."""
        return Secret._inline(_Environ(env_keys))

    @staticmethod
    def from_dotenv(
        path: str | os.PathLike[str] | None = None, *, filename: str = ".env"
    ) -> Secret:
        """A secret of a `.env` file, which is read when the secret is first used.

        `filename` is looked for in `path` (a directory, or the file itself), else in the working directory, and
        upwards from there. Raises FileNotFoundError then.
        """
        return Secret._inline(_Dotenv(path, filename))

    @classmethod
    def from_name(  # type: ignore[override]  # a secret is never made empty, on first use
        cls,
        name: str,
        *,
        environment_name: str | None = None,
        required_keys: Sequence[str] = (),
    ) -> Secret:
        """A stored secret. Does no I/O.

        Using it raises NotFoundError where there is none of that name, and InvalidError where one
        of `required_keys` is not in it.
        """
        del environment_name
        secret = cls._make(check_name("secret", name))
        secret._required = tuple(required_keys)
        return secret

    @classmethod
    def ephemeral(cls, *, environment_name: str | None = None) -> Any:
        """There is none; `Secret.from_dict` is not stored either. Raises InvalidError."""
        raise InvalidError("a Secret cannot be ephemeral; use Secret.from_dict({…})")

    @classmethod
    def _inline(cls, source: _Inline) -> Secret:
        secret = cls._make()
        secret._source = source
        return secret

    @both
    async def set(self, /, value: str | Mapping[str, str | None]) -> None:
        """Store it under its name, in place of what it was; made if there is none.

        A text is the value of a variable that has the secret's name. Containers that run keep the
        values they were started with.
        """
        name = self._require_name("set")
        values = {name: value} if isinstance(value, str) else value
        packed = _packed(check_variables("Secret.set", values))
        await context.ask("secret.set", packed, name=name)

    @both
    async def update(self, /, env_dict: Mapping[str, str | None]) -> None:
        """Change or add the variables in `env_dict`; None removes one. Raises NotFoundError where there is none."""
        name = self._require_name("update")
        changed = check_variables("Secret.update", env_dict)
        removed = [key for key, value in env_dict.items() if value is None]
        await context.ask("secret.update", _packed(changed), name=name, removed=removed)

    def _require_name(self, used: str) -> str:
        if self._name is None:
            raise InvalidError(f"only a stored secret can be changed: Secret.from_name(…).{used}()")
        return self._name

    async def _open(self) -> str:
        if self._source is not None:
            reply = await context.ask("secret.inline", _packed(self._source.read()))
        else:
            reply = await context.ask("secret.open", name=self._name, required=self._required)
        return str(reply.fields["id"])

    def _secret_id(self) -> str:
        """For images, whose digests hold it. Equal contents have equal ids."""
        return self.object_id

    def _extras(self) -> dict[str, Any]:
        if self._name is None and self._resolved is None and self._id is None:
            raise InvalidError(f"{self!r} cannot be sent: its values would be in the clear")
        return {"_required": self._required}

    def __repr__(self) -> str:
        return f"<Secret {self._name or self._id or 'of given values'}>"


Secret.objects = SecretObjects(Secret)


def secret_from_env(*names: str) -> Secret:
    """A secret of the variables `names` of this process, such as `secret_from_env("API_KEY")`."""
    return Secret.from_local_environ(names)


def read_dotenv(path: str | os.PathLike[str]) -> dict[str, str]:
    """The variables of a `.env` file. Raises InvalidError for a name that none can have."""
    from dotenv import dotenv_values

    return check_variables(f"Secret.from_dotenv: {path}", dotenv_values(path, encoding="utf-8"))


def _packed(values: Mapping[str, str]) -> Payload:
    """Values travel as a payload, never as fields: those are shown in logs."""
    return Payload(json.dumps(values).encode())
