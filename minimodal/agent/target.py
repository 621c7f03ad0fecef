"""What a container runs: loading the user's function or class, and calling it.

`Start` is the engine's START frame, parsed. `Target` hides whether there is a function or an object
with methods behind a call.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from minimodal import context, pickling, tracebacks
from minimodal.errors import NotFoundError, PythonMismatch
from minimodal.kinds import is_async
from minimodal.types import Payload
from minimodal.wire import Frame


class Start(NamedTuple):
    """What to load and how to run it."""

    fields: dict[str, Any]
    payload: Payload

    @classmethod
    def parse(cls, frame: Frame) -> Start:
        return cls(json.loads(frame.meta), frame.payload)

    @property
    def is_batched(self) -> bool:
        return bool(self.fields["is_batched"])

    @property
    def max_inputs(self) -> int:
        return int(self.fields["max_inputs"])


class Target:
    """A function. `methods` of a class are in objects.py's subclass of this."""

    def __init__(self, function: Callable[..., Any], is_batched: bool = False) -> None:
        self._function = function
        self.is_batched = is_batched  # it takes and gives lists

    def enter(self) -> list[Callable[[], Any]]:
        """What must run before the first input; each may be async."""
        return []

    def leave(self) -> list[Callable[[], Any]]:
        """What must run after the last input; each may be async."""
        return []

    def callable(self, method: str) -> Callable[..., Any]:
        del method
        return self._function

    @property
    def wants_loop(self) -> bool:
        """Whether an asyncio loop must run while inputs are worked on."""
        return is_async(self._function)


def load(start: Start, socket_path: str) -> Target:
    """Import or unpickle the user's code. Raises what its import raises."""
    fields = start.fields
    os.environ.update(fields["env"])
    context.container = context.ContainerContext(
        fields["container_id"],
        fields["app_id"],
        fields["app_name"],
        fields["function"],
        fields["image"],
    )
    # The process backend cannot mount: it says where the snapshot lies.
    sources = os.environ.get("MINIMODAL_SOURCES_DIR", tracebacks.SOURCES_DIR)
    if os.path.isdir(sources):
        sys.path.insert(0, sources)
    workdir = fields.get("workdir") or sources
    if os.access(workdir, os.X_OK):  # without sources an image's /root may be closed to us
        os.chdir(workdir)
    from .nested import importing

    with importing(socket_path):
        found = _by_name(fields) if fields.get("module") else _by_value(fields, start.payload)
    if fields.get("is_class"):
        from .objects import ObjectTarget

        return ObjectTarget(found, start)
    return Target(getattr(found, "raw", None) or found, start.is_batched)


def _by_name(fields: dict[str, Any]) -> Any:
    name = fields["module"]
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            explain_missing(error)
        raise
    # Classes of a script that was started as __main__ travel by reference to __main__.
    sys.modules["__main__"] = module
    found: Any = module
    for part in fields["qualname"].split("."):
        found = getattr(found, part, None)
        if found is None:
            raise NotFoundError(f"module {name} has no {fields['qualname']!r} in the container")
    return found


def explain_missing(error: BaseException) -> BaseException:
    """Say, once, how a module comes into the image that lacks it."""
    here = context.container
    if not isinstance(error, ModuleNotFoundError) or not error.name or here is None:
        return error
    top = error.name.partition(".")[0]
    hint = (
        f"{top!r} is not in the image of {here.function}. Install it with "
        f"Image.uv_pip_install({top!r}), or, if it is a local module, keep it beside the script or "
        f"add it with Image.add_local_python_source({top!r})."
    )
    if hint not in "\n".join([*getattr(error, "__notes__", ()), str(error)]):
        if hasattr(error, "add_note"):
            error.add_note(hint)
        else:  # Python 3.10; it shows `msg`, and travels as `args`
            error.msg = f"{error}. {hint}"
            error.args = (error.msg,)
    return error


def _by_value(fields: dict[str, Any], payload: Payload) -> Any:
    wanted = fields["python"]
    if wanted != pickling.python_version():
        raise PythonMismatch(
            f"{fields['function']} was sent by value from Python {wanted}, but its image has Python "
            f"{pickling.python_version()}. Use Image.debian_slim(python_version={wanted!r}), or put "
            "the function in a file so that it travels by name."
        )
    return pickling.loads(Payload(payload.data), fields["function"])
