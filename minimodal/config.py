"""The settings: one frozen `Config`, and for each value where it came from.

Sources, strongest first: arguments, `MINIMODAL_*` environment variables, `[tool.minimodal]` of the
nearest pyproject.toml, config.toml of the user, defaults. A setting is declared once, as a field
with its reader; everything else (environment names, `minimodal config`, messages) follows from it.
Nothing here makes a directory or opens a connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from . import readers
from .errors import InvalidError
from .home import locate_home

PREFIX = "MINIMODAL_"
OTHER_VARIABLES = frozenset(
    # Read elsewhere, so not misspelt settings: tests, agents, secrets, debugging.
    "COMPAT DEBUG FAILPOINTS CI_DOCKER REQUIRE_DOCKER SECRET_KEY APP_STATE CONTAINER_ID IMAGE_ID "
    "IMAGE_RECIPE IS_REMOTE PROCESS SANDBOX_ID SOURCES_DIR TASK_ID".split()
)


def _setting(default: Any, read: Callable[[Any], Any], about: str) -> Any:
    return field(default=default, metadata={"read": read, "about": about})


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting. Make one with `load_config`; `Config()` is the defaults alone."""

    backend: str = _setting(
        "auto",
        readers.choice("auto", "docker", "bubblewrap", "process", "embedded"),
        "where containers run; auto takes the first that works, embedded the first but docker",
    )
    docker_host: str | None = _setting(None, readers.text, "address of the Docker engine")
    runtime: str | None = _setting(
        None, readers.text, "OCI runtime of the Docker engine, such as runsc"
    )
    home: Path | None = _setting(  # noqa: RUF009  # it makes a field
        None, readers.path, "one directory for everything, instead of XDG's"
    )
    loglevel: str = _setting(
        "warning", readers.choice("debug", "info", "warning", "error"), "what the platform logs"
    )
    durability: str = _setting(
        "normal",
        readers.choice("normal", "full"),
        "full: a spawned call survives a power cut, at the price of one fsync for each group",
    )
    port: int = _setting(8787, readers.whole(0, 65535), "first port that the gateway tries; 0: any")
    host: str = _setting(
        "127.0.0.1", readers.text, "address that the gateway listens on; others need tokens"
    )
    strict_port: bool = _setting(False, readers.flag, "a taken port is an error, not the next one")
    host_names: tuple[str, ...] = _setting(
        (), readers.names, "names of this machine that the gateway answers to"
    )
    show_errors: bool = _setting(False, readers.flag, "web endpoints answer 500 with the traceback")
    cpu_budget: float | None = _setting(None, readers.cores, "cores for all containers together")
    memory_budget: int | None = _setting(None, readers.mebibytes, "MiB for all containers together")
    gpu: str = _setting(
        "error",
        readers.choice("error", "ignore"),
        "a function that asks for a GPU where there is none: an error, or run on the CPU",
    )
    force_build: bool = _setting(False, readers.flag, "build images anew, whatever the cache holds")
    retention: float = _setting(
        7 * 86400.0, readers.seconds, "how long results and history are kept"
    )
    drain: float = _setting(
        10.0, readers.seconds, "time that calls get to finish when `minimodal up` stops"
    )
    max_queued: int = _setting(
        1_000_000, readers.whole(1, 10**9), "calls that may wait at one time"
    )
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def origin(self, name: str) -> str:
        """Where the value of setting `name` came from, in words."""
        return self.origins.get(name, "default")


class _Source(NamedTuple):
    values: Mapping[str, Any]
    where: str
    spelling: Callable[[str], str] = lambda name: ""  # of a setting's name, behind `where`
    base: Path | None = None  # relative paths start here

    def origin(self, name: str) -> str:
        return self.where + self.spelling(name)


def settings() -> Iterator[tuple[str, str]]:
    """Name and one line about each setting, in order."""
    for each in fields(Config):
        if "about" in each.metadata:
            yield each.name, each.metadata["about"]


def plain_value(value: Any) -> Any:
    """A setting's value as JSON has it."""
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def load_config(
    arguments: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Config:
    """Read the settings from all sources. An argument that is None counts as not given.

    Raises InvalidError that names the origin of a bad value and what is allowed there.
    """
    environ = os.environ if environ is None else environ
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    found: dict[str, Any] = {}
    origins: dict[str, str] = {}
    sources = [
        _Source(given, "argument --", lambda name: name.replace("_", "-")),
        _Source(_variables(environ), f"environment variable {PREFIX}", str.upper),
        *_project(directory or Path.cwd()),
    ]
    for source in sources:
        _take(source, found, origins)
    for source in _user(found.get("home"), environ):
        _take(source, found, origins)
    return Config(**found, origins=origins)


def user_file(config: Config) -> Path:
    """The config.toml of the user, whether or not it exists."""
    return locate_home(config.home).config / "config.toml"


def _take(source: _Source, found: dict[str, Any], origins: dict[str, str]) -> None:
    """Add what `source` says about settings that no stronger source has set; check all it says."""
    known = {each.name: each for each in fields(Config) if "read" in each.metadata}
    for name, value in source.values.items():
        setting = known.get(name)
        if setting is None:
            raise InvalidError(_unknown(name, source.origin(name), list(known)))
        try:
            read = setting.metadata["read"](value)
        except readers.Unfit as unfit:
            raise InvalidError(
                f"{source.origin(name)}: {name} = {value!r} is not possible. Allowed is {unfit}."
            ) from None
        if isinstance(read, Path) and source.base is not None:
            read = source.base / read
        if name not in found:
            found[name], origins[name] = read, source.origin(name)


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings among the environment variables; warns of names that look misspelt."""
    names = [each.name for each in fields(Config) if "read" in each.metadata]
    values = {}
    for variable, value in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or name in OTHER_VARIABLES or not value:
            continue
        if name.isupper() and name.lower() in names:
            values[name.lower()] = value
        else:
            _warn(_unknown(variable, "environment", [PREFIX + known.upper() for known in names]))
    return values


def _warn(message: str) -> None:
    import logging  # 5 ms, and hardly ever needed

    logging.getLogger("minimodal.config").warning("%s (ignored)", message)


def _unknown(name: str, origin: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(known)}."
    return f"{origin}: there is no setting {name}. {hint}"


def _project(directory: Path) -> Iterator[_Source]:
    for folder in (directory, *directory.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            tables = _tables(path)
            tool = tables.get("tool", {}).get("minimodal") if tables else None
            if tool is not None:
                yield _Source(_table(tool, path), f"[tool.minimodal] in {path}", base=folder)
            return


def _user(home: Path | None, environ: Mapping[str, str]) -> Iterator[_Source]:
    path = locate_home(home, environ).config / "config.toml"
    if path.is_file():
        values = _table(_tables(path), path)
        if "home" in values:
            raise InvalidError(
                f"{path}: home cannot be set in the file that lies in it. "
                f"Set {PREFIX}HOME, or home in [tool.minimodal] of pyproject.toml."
            )
        yield _Source(values, str(path), base=path.parent)


def _table(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidError(f"{path}: [tool.minimodal] must be a table of settings")
    return {name.replace("-", "_"): each for name, each in value.items()}


def _tables(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        if path.name == "pyproject.toml" and b"minimodal" not in content:
            return {}  # spares the parser's import, 20 ms, in every other project
        return _toml(content.decode())
    except (OSError, ValueError) as error:
        raise InvalidError(f"{path} cannot be read as TOML: {error}") from error


def _toml(text: str) -> dict[str, Any]:
    import sys

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    tables: dict[str, Any] = tomllib.loads(text)
    return tables
