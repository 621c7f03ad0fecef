"""What a failure looks like: one block that says what, why and what to try, and an exit code.

The user's own exceptions are shown as a traceback of the user's frames alone. `--debug` (or
MINIMODAL_DEBUG=1) shows everything.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import sys
import traceback
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from minimodal.errors import Error, ImageBuildError, InvalidError, RuntimeUnavailable
from minimodal.tracebacks import PACKAGE

from .terminal import paint

STDLIB = os.path.dirname(os.__file__) + os.sep  # site-packages lies in it too
INSTALLED = tuple(os.path.join(prefix, "") for prefix in {sys.prefix, sys.base_prefix})
PLUMBING = (
    "ast.py",
    "asyncio",
    "concurrent",
    "contextlib.py",
    "importlib",
    "runpy.py",
    "threading.py",
)
OURS = (PACKAGE, "/opt/minimodal/")  # here, and in a container
LOG_LINES = 20
_LIBRARY = re.compile(r"/lib/python3(\.\d+)?/")  # in a container: of Python, or installed there
CALLS = ("remote", "map", "starmap", "for_each", "spawn", "remote_gen", "local")


class UsageError(InvalidError):
    """The command line is wrong, or what it names cannot be run. `code` is the exit code."""

    def __init__(
        self, message: str, *, hint: str = "", choices: Sequence[str] = (), code: int = 2
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.choices = choices
        self.code = code


def nearest(word: str, known: Iterable[str]) -> str | None:
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), 1)), None)


def show(error: BaseException) -> int:
    """Print a failure on stderr and give the exit code. Never raises."""
    try:
        if isinstance(error, KeyboardInterrupt):
            return 130
        if isinstance(error, SystemExit):
            if not isinstance(error.code, int | None):
                print(error.code, file=sys.stderr)
            return exit_code(error)
        if isinstance(error, BrokenPipeError) and _stdout_is_closed():
            return 1
        text = describe(error, debug=os.environ.get("MINIMODAL_DEBUG") == "1")
        print(text, file=sys.stderr, end="", flush=True)
    except BrokenPipeError:
        _stdout_is_closed()
    return exit_code(error)


def exit_code(error: BaseException) -> int:
    """The exit code that an ending has. Of SystemExit what Python does: a number, or 1 for a message."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, SystemExit):
        return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    return error.code if isinstance(error, UsageError) else 1


def describe(error: BaseException, *, debug: bool = False) -> str:
    """The text to print for a failure, ending in a newline."""
    if debug:
        return "".join(traceback.format_exception(error))
    inner: Sequence[BaseException] = getattr(error, "exceptions", ())
    if len(inner) == 1:  # a task group around one error
        return describe(inner[0])
    if isinstance(error, Error):
        return _block(error)
    return user_traceback(error)


def _block(error: Error) -> str:
    what, *more = str(error).strip().splitlines() or [type(error).__name__]
    lines = [f"{paint('error:', 'bold red', sys.stderr)} {what}", *("  " + line for line in more)]
    if isinstance(error, UsageError):
        lines += ["  " + choice for choice in error.choices]
    elif last := _last_own_frame(error):
        lines.append(f"  at:  {last.filename}:{last.lineno} in {last.name}: {last.line}")
    if isinstance(error, ImageBuildError) and error.log:
        tail = error.log.rstrip().splitlines()[-LOG_LINES:]
        if not tail or tail[-1].strip() not in str(error):  # else the message has it already
            lines += ["  | " + line for line in tail]
    cause = error.__cause__
    if isinstance(cause, Exception) and (why := str(cause).strip()) and why not in str(error):
        lines.append(f"  why: {type(cause).__name__}: {why}")
    if hint := _hint(error):
        lines.append(f"  try: {hint}")
    return "\n".join(lines) + "\n"


def _hint(error: Error) -> str:
    if isinstance(error, UsageError):
        return error.hint
    if isinstance(error, RuntimeUnavailable):
        return "minimodal doctor"
    return ""


def user_traceback(error: BaseException) -> str:
    """The traceback without the platform's frames; whole where only those are left: our bug."""
    shown = traceback.TracebackException.from_exception(error)
    if _last_own_frame(error) is None and not isinstance(error, SyntaxError):
        note = "This is a bug in minimodal: no code of yours is in this traceback.\n"
        return "".join(shown.format()) + note
    _trim(shown, seen=set())
    advice = advice_on(error)
    return "".join(shown.format()) + (f"  try: {advice}\n" if advice else "")


def advice_on(error: BaseException) -> str:
    """What to do about the mistakes that everybody makes once; "" for all others."""
    if isinstance(error, AttributeError):
        obj, name = error.obj, error.name or ""
        if callable(obj) and name in CALLS and not type(obj).__module__.startswith("minimodal"):
            called = getattr(obj, "__name__", "it")
            return f"@app.function() above {called}: a plain function has no .{name}"
        if isinstance(obj, ModuleType) and obj.__name__.startswith("minimodal."):
            # Once something of ours has imported it, `minimodal.image` is a module.
            obj, name = sys.modules["minimodal"], obj.__name__.partition(".")[2]
        if type(obj).__module__.startswith("minimodal") or obj is sys.modules.get("minimodal"):
            names = {each.lower(): each for each in dir(obj) if not each.startswith("_")}
            near = name.lower() if name.lower() in names else nearest(name.lower(), names)
            is_module = obj is not error.obj  # which has a name that is right, or is another's
            if near and not (is_module and near != name.lower()):
                return f"{names[near]}, not {name}"
    local = isinstance(error, ModuleNotFoundError) and not getattr(error, "__notes__", None)
    if local and error.name != "minimodal":  # type: ignore[attr-defined]  # it is one
        return (
            "import it inside the function, or under `with image.imports():`, if only containers "
            "need it; else install it here"
        )
    return ""


def _trim(part: traceback.TracebackException, seen: set[int]) -> None:
    if id(part) in seen:
        return
    seen.add(id(part))
    part.stack = _Shortened(_user_frames(part))
    inner = [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    for each in inner:
        if each is not None:
            _trim(each, seen)


class _Shortened(traceback.StackSummary):
    """Of many frames of libraries in a row the first and the last are shown."""

    def format(self, **options: Any) -> list[str]:  # 3.13 gives `colorize`
        shown: list[str] = []
        for own, run in itertools.groupby(self, lambda frame: _is_own(frame.filename)):
            frames = list(run)
            left_out = 0 if own else len(frames) - 2
            if left_out > 1:
                shown += traceback.StackSummary.from_list(frames[:1]).format(**options)
                shown.append(f"  … {left_out} frames of libraries (--debug shows them)\n")
                frames = frames[-1:]
            shown += traceback.StackSummary.from_list(frames).format(**options)
        return shown


def _user_frames(part: traceback.TracebackException) -> list[traceback.FrameSummary]:
    """All frames but ours, and but those that lead from us to the user's code."""
    frames = [frame for frame in part.stack if not frame.filename.startswith(OURS)]
    for is_start in (_is_own, lambda filename: not _is_plumbing(filename)):
        first = next((i for i, frame in enumerate(frames) if is_start(frame.filename)), None)
        if first is not None:
            return frames[first:]
    return []


def _last_own_frame(error: BaseException) -> traceback.FrameSummary | None:
    """Where the user's own code was: not in what is installed, and not in us."""
    frames = _user_frames(traceback.TracebackException.from_exception(error))
    own = [frame for frame in frames if _is_own(frame.filename)]
    return own[-1] if own else None


def _is_own(filename: str) -> bool:
    installed = filename.startswith((STDLIB, *INSTALLED)) or _LIBRARY.search(filename)
    return not installed and (os.path.isabs(filename) or filename.startswith("<ipython"))


def _is_plumbing(filename: str) -> bool:
    inside = filename.removeprefix(STDLIB)
    return filename.startswith("<frozen ") or (inside != filename and inside.startswith(PLUMBING))


def _stdout_is_closed() -> bool:
    """Whether our own stdout lost its reader; if so it is silenced, else Python complains at exit."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
        closed = any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on Windows; no descriptor in a notebook
        return False
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return closed
