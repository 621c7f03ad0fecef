"""Exceptions across processes: they keep type, attributes, causes, notes and the remote frames.

The sender packs an exception and its chain into a `Failure`: words for the engine and the log, and
a pickle for the caller. The caller gets the same exception with a traceback whose frames show the
remote file, line and source text. The frames are made as the tblib package does it: code objects
with the right name and file that raise on the right line.
"""

from __future__ import annotations

import linecache
import os
import sys
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

from . import pickling
from .errors import ExecutionError, RemoteError
from .types import Failure, Payload

SOURCES_DIR = "/root"
"""Where a snapshot of the user's sources is seen in a container."""

PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
MAX_FRAMES = 100
MAX_MESSAGE = 64 * 1024
MAX_CHAIN = 32

IMPORTLIB = os.path.join("importlib", "__init__.py")

FrameRecord = tuple[str, int, str, str]  # file name, line number, function, source line


class Link(NamedTuple):
    """One exception of a chain on its way. `pickled` is None where it refuses to be pickled."""

    pickled: Payload | None
    type: str
    message: str
    notes: list[str] | None
    frames: list[FrameRecord]
    cause: int | None  # indexes into the list of links
    context: int | None
    suppress_context: bool


def pack(error: BaseException) -> Failure:
    """Turn a raised exception into a Failure. Never raises."""
    links = pickling.dumps(_links(error))
    return Failure(_type_name(error), _message(error), format_remote(error), links)


def rebuild(failure: Failure, what: str, paths: Mapping[str, str]) -> BaseException:
    """The exception to raise in the caller. `paths` maps remote directories to local ones."""
    if failure.payload is not None:
        try:
            return _relink(pickling.loads(failure.payload), what, paths)
        except Exception:  # the container sent something else than links: say what it said in words
            pass
    return RemoteError(f"{what} raised {failure.type}: {failure.message}\n{failure.traceback}")


def _links(error: BaseException) -> list[Link]:
    order: list[BaseException] = []

    def visit(e: BaseException | None) -> None:
        if e is not None and all(e is not seen for seen in order) and len(order) < MAX_CHAIN:
            order.append(e)
            visit(e.__cause__)
            visit(e.__context__)

    def index(e: BaseException | None) -> int | None:
        return next((i for i, other in enumerate(order) if other is e), None)

    visit(error)
    return [
        Link(
            _pickled(e),
            _type_name(e),
            _message(e),
            getattr(e, "__notes__", None),
            _user_frames(e.__traceback__),
            index(e.__cause__),
            index(e.__context__),
            e.__suppress_context__,
        )
        for e in order
    ]


def _pickled(error: BaseException) -> Payload | None:
    """Many exceptions pickle and then cannot be unpickled, so both ways are tried."""
    try:
        payload = pickling.dumps(error)
        pickling.loads(payload)
        return payload
    except BaseException:
        return None


def _relink(links: list[Link], what: str, paths: Mapping[str, str]) -> BaseException:
    made: list[BaseException] = []
    for link in links:
        error = _unpickled(link, what)
        if link.notes and not hasattr(error, "__notes__"):
            error.__notes__ = link.notes  # type: ignore[attr-defined]  # 3.11 and later print them
        made.append(error.with_traceback(make_traceback(link.frames, paths)))
    for error, link in zip(made, links, strict=True):
        error.__cause__ = None if link.cause is None else made[link.cause]
        error.__context__ = None if link.context is None else made[link.context]
        error.__suppress_context__ = link.suppress_context
    return made[0]


def _unpickled(link: Link, what: str) -> BaseException:
    reason = "it cannot be pickled"
    if link.pickled is not None:
        try:
            error = pickling.loads(link.pickled)
            if isinstance(error, Exception):
                return error
            if isinstance(error, BaseException):
                # SystemExit and its like end a process: the container's, not the caller's.
                return ExecutionError(f"{what} ended its process: {error!r}")
        except Exception as refused:
            reason = str(refused)
    return RemoteError(
        f"{what} raised {link.type}: {link.message}\n(The exception itself could not be brought "
        f"here: {reason})"
    )


def _message(error: BaseException) -> str:
    try:
        return str(error)[:MAX_MESSAGE]
    except Exception:
        return "<the exception's own str() failed>"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return (
        kind.__qualname__
        if kind.__module__ == "builtins"
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _source_line(file: str, lineno: int, module: dict[str, Any]) -> str:
    """A line of a source, empty where it cannot be had.

    linecache asks the module's loader, which is a library's and may answer what is no source.
    """
    try:
        return linecache.getline(file, lineno, module).rstrip("\n")
    except Exception:  # an error must not become another one while it is told
        return ""


def _user_frames(tb: TracebackType | None) -> list[FrameRecord]:
    """The frames of user code: what comes before it in the agent is left out."""
    frames: list[FrameRecord] = []
    sources = os.environ.get("MINIMODAL_SOURCES_DIR", SOURCES_DIR)  # of the process backend
    for frame, lineno in traceback.walk_tb(tb):
        code = frame.f_code
        if not frames and _is_machinery(code.co_filename):
            continue
        line = _source_line(code.co_filename, lineno, frame.f_globals)
        name = code.co_filename
        if name.startswith(sources + "/"):
            name = SOURCES_DIR + name[len(sources) :]
        frames.append((name, lineno, code.co_name, line))
    return frames[:MAX_FRAMES]


def _is_machinery(filename: str) -> bool:
    """The agent, and the import system that it starts user code through."""
    return filename.startswith((PACKAGE, "<frozen importlib")) or filename.endswith(IMPORTLIB)


def format_remote(error: BaseException) -> str:
    """The traceback as text, without the agent's own frames."""
    try:
        packed = traceback.TracebackException.from_exception(error, compact=True)
        part: Any = packed
        seen = 0
        while part is not None and seen < MAX_CHAIN:
            kept = [f for f in part.stack if not _is_machinery(f.filename)]
            part.stack = traceback.StackSummary.from_list(kept or list(part.stack))
            part = part.__cause__ or part.__context__
            seen += 1
        return "".join(packed.format())[-MAX_MESSAGE:]
    except Exception:
        return f"{_type_name(error)} (its traceback could not be formatted)\n"


def make_traceback(frames: list[FrameRecord], paths: Mapping[str, str]) -> TracebackType | None:
    """A traceback object that prints the recorded frames, oldest first."""
    made: TracebackType | None = None
    for filename, lineno, name, line in reversed(frames):
        local = _local_path(filename, paths)
        if not os.path.exists(local):
            _remember_line(local, lineno, line)
        tb = _one_frame(local, lineno, name)
        if tb is not None:
            made = TracebackType(made, tb.tb_frame, tb.tb_lasti, lineno)
    return made


def _local_path(filename: str, paths: Mapping[str, str]) -> str:
    for remote, local in paths.items():
        if filename.startswith(remote.rstrip("/") + "/"):
            candidate = os.path.join(local, filename[len(remote.rstrip("/")) + 1 :])
            if os.path.exists(candidate):
                return candidate
    return filename


def _remember_line(filename: str, lineno: int, line: str) -> None:
    """Let the traceback printer find the source line of a file that is not on this machine."""
    entry = linecache.cache.get(filename)
    lines = list(entry[2]) if entry and len(entry) == 4 else []
    lines += ["\n"] * (lineno - len(lines))
    lines[lineno - 1] = line + "\n"
    linecache.cache[filename] = (len(lines), None, lines, filename)


def _one_frame(filename: str, lineno: int, name: str) -> TracebackType | None:
    code = compile("\n" * (lineno - 1) + "raise _Here", filename, "exec")
    changes: dict[str, Any] = {"co_name": name}
    if sys.version_info >= (3, 11):
        changes["co_qualname"] = name
    try:
        exec(code.replace(**changes), {"_Here": _Here})
    except _Here as here:
        return here.__traceback__.tb_next if here.__traceback__ else None
    return None


class _Here(Exception):
    pass
