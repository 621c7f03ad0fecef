"""Where state lies on disk: one `Home`, XDG directories or everything under `MINIMODAL_HOME`.

Owns the layout and nothing else: no file is opened here. Directories are made on first use, mode
0700. Relative XDG paths are ignored, as the XDG specification says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .errors import StateError

hosted: Path | None = None
"""What a setting names as the home of the engine in this process: its apps' sources go there too."""


class Home(NamedTuple):
    """The four directories. `runtime` holds sockets and is kept short: a Unix path has 107 bytes."""

    config: Path  # config.toml, key file
    data: Path  # volumes, deployments
    cache: Path  # images, layers, sources, uv's cache
    state: Path  # database, logs
    runtime: Path  # sockets, locks of live engines

    @property
    def database(self) -> Path:
        return self.state / "minimodal.db"

    @property
    def sources(self) -> Path:
        return self.cache / "sources"

    @property
    def blobs(self) -> Path:
        return self.data / "blobs"

    @property
    def volumes(self) -> Path:
        return self.data / "volumes"

    @property
    def secrets(self) -> Path:
        """One encrypted file for each secret."""
        return self.data / "secrets"

    @property
    def key_file(self) -> Path:
        """What the secrets are encrypted with; mode 0600."""
        return self.config / "secret.key"

    @property
    def layers(self) -> Path:
        return self.cache / "layers"

    @property
    def environments(self) -> Path:
        """Virtual environments of the process backend, one for each layer."""
        return self.cache / "environments"

    @property
    def engines(self) -> Path:
        """One lock file and one socket for each live engine."""
        return self.runtime / "engines"


def locate_home(
    path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None
) -> Home:
    """The home at `path`, else the one that is hosted here, else `MINIMODAL_HOME`, else the XDG
    directories; nothing is created."""
    root = path or (hosted if environ is None else None)
    environ = os.environ if environ is None else environ
    root = root or environ.get("MINIMODAL_HOME")
    return _under(Path(root).expanduser().absolute()) if root else _xdg(environ)


def open_home(path: str | os.PathLike[str] | None = None) -> Home:
    """The home that `locate_home` names, with its directories made. Raises StateError.

    A full or read-only disk shows here and not in the middle of a call.
    """
    home = locate_home(path)
    for directory in (home.config, home.data, home.cache, home.state, home.runtime, home.engines):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(directory, os.W_OK):
                raise PermissionError(13, "Permission denied", str(directory))
        except OSError as error:
            raise StateError(
                f"the state directory {directory} cannot be used: {error.strerror}. Set "
                "MINIMODAL_HOME to a directory that you can write to and that has free space."
            ) from error
    return home


def _under(root: Path) -> Home:
    return Home(root / "config", root / "data", root / "cache", root / "state", _runtime(root))


def _runtime(root: Path) -> Path:
    """`root/run`, or a short directory of this home's own where that is too long for a socket."""
    if len(str(root)) <= 50:
        return root / "run"
    import hashlib

    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return _temporary() / name


def _xdg(environ: Mapping[str, str]) -> Home:
    user = Path.home()
    if sys.platform == "darwin":
        library = user / "Library"
        support, cache = library / "Application Support" / "minimodal", library / "Caches"
        return Home(
            support, support / "data", cache / "minimodal", support / "state", _runtime(support)
        )
    if sys.platform == "win32":
        root = Path(environ.get("LOCALAPPDATA", user / "AppData" / "Local")) / "minimodal"
        return _under(root)

    def directory(variable: str, default: str) -> Path:
        value = environ.get(variable, "")
        return (Path(value) if os.path.isabs(value) else user / default) / "minimodal"

    runtime = environ.get("XDG_RUNTIME_DIR", "")
    short = Path(runtime) if os.path.isabs(runtime) and os.access(runtime, os.W_OK) else None
    return Home(
        directory("XDG_CONFIG_HOME", ".config"),
        directory("XDG_DATA_HOME", ".local/share"),
        directory("XDG_CACHE_HOME", ".cache"),
        directory("XDG_STATE_HOME", ".local/state"),
        short / "minimodal" if short else _temporary(),
    )


def _temporary() -> Path:
    import tempfile  # 10 ms: it brings random and hashlib

    return Path(tempfile.gettempdir()) / f"mm-{_uid()}"


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
