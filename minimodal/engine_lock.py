"""One lock file for each live engine: who lives, told by the kernel and not by a pid.

Owns `Home.engines/<engine id>.lock` and nothing else. The lock is POSIX `lockf`: it ends with its
process, however that dies, and a forked child does not inherit it (a child of the user's script
keeps an `flock` held for as long as it runs). It has one trap: closing *any* descriptor of the file
drops the process's lock, so this module opens a file only if no engine of this process holds it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .clock import Clock, SystemClock
from .errors import AlreadyExistsError, StateError
from .home import Home


class EngineInfo(NamedTuple):
    """A live engine, for people: `minimodal ps`, and the error of a second `minimodal up`."""

    id: str
    pid: int = 0  # 0: just starting, not yet written
    started: float = 0.0  # wall clock
    host: str = ""
    role: str = ""  # "run", "up", "serve", …


class EngineLock:
    """A held lock. Made by `hold_engine_lock`; `check` says whether it is still worth something."""

    def __init__(self, info: EngineInfo, path: Path, fd: int) -> None:
        self.info = info
        self.path = path
        self._fd = fd

    def check(self) -> None:
        """Raise StateError if others may take this engine for dead: call it every few seconds."""
        try:
            held, there = os.fstat(self._fd), os.stat(self.path)
            if _key(held) == _key(there):
                os.utime(self.path)  # cleaners of /tmp remove what looks old
                return
            reason = "was replaced"
        except FileNotFoundError:
            reason = "was removed"
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
        raise StateError(
            f"the lock file {self.path} of engine {self.info.id} {reason}: other engines would take "
            "over its calls, so it stops. Was the home directory deleted or moved?"
        )


@contextlib.contextmanager
def hold_engine_lock(
    home: Home,
    engine_id: str,
    *,
    role: str = "run",
    sole: bool = False,
    clock: Clock | None = None,
) -> Iterator[EngineLock]:
    """Hold the lock of `engine_id` for the block.

    `sole`: at most one engine of this role in this home; raises AlreadyExistsError with its pid.
    """
    started = (clock or SystemClock()).now()
    info = EngineInfo(engine_id, os.getpid(), started, socket.gethostname(), role)
    with contextlib.ExitStack() as stack:
        if sole:
            stack.enter_context(_sole(home, info))
        path = _path(home, engine_id)
        fd, key = _take(path, info)
        stack.callback(_release, path, fd, key)
        yield EngineLock(info, path, fd)


def is_alive(home: Home, engine_id: str) -> bool:
    """Whether an engine of that id runs now. Ids are never used twice, so dead means for ever."""
    return _probe(_path(home, engine_id)) is not None


def live_engines(home: Home) -> tuple[EngineInfo, ...]:
    """The engines that run now in this home, in this process or another, oldest first."""
    found = (_probe(path) for path in home.engines.glob("*.lock"))
    return tuple(sorted((info for info in found if info), key=lambda info: (info.started, info.id)))


def sweep_dead_engines(home: Home) -> tuple[str, ...]:
    """Remove what dead engines left in `Home.engines` (lock, socket), and return their ids."""
    dead: list[str] = []
    for path in sorted(home.engines.glob("*.lock")):
        if _probe(path, remove=True) is None:
            dead.append(path.stem)
            for leftover in home.engines.glob(f"{path.stem}.*"):
                leftover.unlink(missing_ok=True)
    return tuple(dead)


# --- the files ------------------------------------------------------------------------------------

_FileKey = tuple[int, int]

_mutex = threading.Lock()
_held: dict[_FileKey, EngineInfo] = {}  # what this process holds: never to be opened again


def _after_fork() -> None:
    """The child holds none of its parent's locks, and a mutex held at the fork would stay held."""
    global _mutex
    _mutex = threading.Lock()
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


def _path(home: Home, engine_id: str) -> Path:
    if not engine_id or "/" in engine_id or engine_id.startswith("."):
        raise ValueError(f"{engine_id!r} is not an engine id")
    return home.engines / f"{engine_id}.lock"


def _key(status: os.stat_result) -> _FileKey:
    return status.st_dev, status.st_ino


def _take(path: Path, info: EngineInfo) -> tuple[int, _FileKey]:
    """Create and lock the file. A sweeper may remove it in between: then do it again."""
    while True:
        with _mutex:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                raise AlreadyExistsError(f"an engine {info.id} exists: {path}") from None
            except OSError as error:
                raise StateError(f"cannot create {path}: {error.strerror}") from error
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX)  # waits at most for a sweeper's probe
                if os.fstat(fd).st_nlink:
                    os.write(fd, json.dumps(info._asdict()).encode())
                    key = _key(os.fstat(fd))
                    _held[key] = info
                    return fd, key
            except OSError as error:
                os.close(fd)
                path.unlink(missing_ok=True)
                raise StateError(f"cannot lock {path}: {error.strerror}") from error
            os.close(fd)


def _release(path: Path, fd: int, key: _FileKey) -> None:
    with _mutex, contextlib.suppress(OSError):
        _held.pop(key, None)
        if _key(os.fstat(fd)) != key:  # the user's script closed our descriptor: not ours to close
            return
        with contextlib.suppress(FileNotFoundError):
            if _key(os.stat(path)) == key:
                os.unlink(path)
        os.close(fd)


def _probe(path: Path, *, remove: bool = False) -> EngineInfo | None:
    """The live owner of a lock file, or None. `remove` unlinks a dead one's while we hold it."""
    with _mutex:
        try:
            ours = _held.get(_key(os.stat(path)))
            if ours:
                return ours
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            # Shared, so that two engines which probe at once do not take each other for the owner.
            fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            return _read(path, fd)
        else:
            if remove:
                path.unlink(missing_ok=True)
            return None
        finally:
            os.close(fd)


def _read(path: Path, fd: int) -> EngineInfo:
    try:
        data = json.loads(os.pread(fd, 4096, 0))
        return EngineInfo(
            path.stem, int(data["pid"]), float(data["started"]), data["host"], data["role"]
        )
    except (ValueError, KeyError, TypeError):  # locked, not yet written
        return EngineInfo(path.stem)


@contextlib.contextmanager
def _sole(home: Home, info: EngineInfo) -> Iterator[None]:
    """Hold `<role>.sole`. The file stays: removing it would race with the next engine's lock."""
    path = home.engines / f"{info.role}.sole"
    with _mutex:
        if path.exists() and _key(os.stat(path)) in _held:
            raise _second(home, info, _held[_key(os.stat(path))].pid)
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            pid = _read(path, fd).pid
            os.close(fd)
            raise _second(home, info, pid) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, json.dumps(info._asdict()).encode(), 0)
        key = _key(os.fstat(fd))
        _held[key] = info
    try:
        yield
    finally:
        with _mutex:
            _held.pop(key, None)
            os.close(fd)


def _second(home: Home, info: EngineInfo, pid: int) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"`minimodal {info.role}` already runs in this home ({home.engines}), pid {pid or 'unknown'}. "
        "Stop it first, or set MINIMODAL_HOME to another directory."
    )
