"""Every error that minimodal raises, with Modal's names where Modal has one.

    Error
    ├── InvalidError              a wrong argument or use; the message says what to write instead
    │   ├── ConflictError         two options that cannot go together
    │   ├── NotRunningError       a handle was used while no engine could be reached
    │   ├── BlockingCallInLoop    a blocking call on the engine's own loop
    │   └── PythonMismatch        a function by value would cross Python minor versions
    ├── NotFoundError             no app, function, call, volume, … of that name
    ├── AlreadyExistsError
    ├── AuthError                 wrong or missing token, or not yours
    ├── SerializationError        a value cannot be pickled
    ├── DeserializationError      bytes cannot be unpickled here
    ├── ExecutionError            the container failed, not the user's code
    │   ├── CallLost              containers went away more often than we retry
    │   │   └── OutOfMemory       … because of their memory limit
    │   ├── StartupError          the import, or @enter, failed or hung
    │   └── CircuitOpen           failed fast: the function's containers failed repeatedly
    ├── RemoteError               the remote code failed with what cannot be raised here as itself
    │   ├── CallCancelled
    │   └── ImageBuildError       (also BuildError) a build step failed; holds its log's tail
    ├── TimeoutError              not the builtin
    │   ├── FunctionTimeoutError  an attempt ran longer than the function's timeout
    │   ├── SandboxTimeoutError
    │   └── OutputExpiredError    the result was kept for its retention time and is gone
    ├── SandboxTerminatedError
    ├── ResourceExhaustedError    a stated bound or quota was hit; the message names it
    ├── RuntimeUnavailable        a backend cannot work here; says why and the way out
    ├── LaunchError               a container did not start
    ├── StateError                the home directory or its database cannot be used
    ├── VolumeError
    └── ProtocolError             a peer sent what the wire format does not allow

    InputCancellation             a BaseException, raised inside a cancelled input

`minimodal.exception` re-exports these names.
"""

from __future__ import annotations

import builtins


class Error(Exception):
    """Root of all errors of minimodal."""


class InvalidError(Error):
    """A wrong argument, or a right one in the wrong place."""


class ConflictError(InvalidError):
    """Two options that cannot go together."""


class NotRunningError(InvalidError):
    """A handle was used while no engine could be reached."""


class BlockingCallInLoop(InvalidError):
    """A blocking call was made on the loop that must answer it; use `.aio` there."""


class PythonMismatch(InvalidError):
    """A function by value would run on another Python minor version than it was pickled on."""


class NotFoundError(Error):
    """No object of that name or id."""


class AlreadyExistsError(Error):
    """An object of that name exists."""


class AuthError(Error):
    """The token is wrong or missing, or the object belongs to another user."""


class SerializationError(Error):
    """A value cannot be pickled; the message names its type."""


class DeserializationError(Error):
    """Bytes cannot be unpickled here; the message holds the reason."""


class ExecutionError(Error):
    """The container failed, not the user's code."""


class CallLost(ExecutionError):
    """The containers that ran the call went away more often than it is retried."""


class OutOfMemory(CallLost):
    """The container hit its memory limit."""


class StartupError(ExecutionError):
    """The user's module failed to import, or `@enter` failed or hung."""


class CircuitOpen(ExecutionError):
    """The function's containers failed repeatedly; calls fail fast until a probe succeeds."""


class RemoteError(Error):
    """Remote code failed with something that cannot be raised here as itself."""


class CallCancelled(RemoteError):
    """The call was cancelled."""


class ImageBuildError(RemoteError):
    """A step of an image's build failed. `log` holds the tail of its output."""

    def __init__(self, message: str = "", log: str = "") -> None:
        super().__init__(message)
        self.log = log


BuildError = ImageBuildError


class TimeoutError(Error):
    """Something took longer than it may. Not the builtin; `FunctionCall.get` raises the builtin."""


class FunctionTimeoutError(TimeoutError):
    """An attempt ran longer than the function's `timeout`."""


class SandboxTimeoutError(TimeoutError):
    """The sandbox reached the end of its lifetime."""


class OutputExpiredError(TimeoutError):
    """The result's retention time is over."""


class SandboxTerminatedError(Error):
    """The sandbox was terminated."""


class ResourceExhaustedError(Error):
    """A stated bound or quota was hit; the message names it."""


class RuntimeUnavailable(Error):
    """A backend cannot work here. The message says why and what to do."""


class LaunchError(Error):
    """A container did not start."""


class StateError(Error):
    """The home directory or its database cannot be used as it is."""

    damaged = False  # one file's content, which no later attempt would find mended


class VolumeError(Error):
    """A volume's operation failed."""


class ProtocolError(Error):
    """A peer sent what the wire format does not allow."""


class InputCancellation(BaseException):
    """Raised inside a function whose input was cancelled."""


def error_named(name: str, message: str) -> Exception:
    """The error of this module, or of builtins, with that class name; RemoteError otherwise.

    Errors cross the wire as (class name, message); only names of this page and a few builtins
    are rebuilt, so that a peer can never choose what is constructed here.
    """
    allowed = {"FileNotFoundError", "FileExistsError", "KeyError", "ValueError", "TypeError"}
    allowed |= {"IsADirectoryError", "NotADirectoryError", "PermissionError"}
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, Error):
        return found(message)
    if name == "builtins.TimeoutError":
        return builtins.TimeoutError(message)
    if name in allowed:
        error: Exception = getattr(builtins, name)(message)
        return error
    return RemoteError(f"{name}: {message}")


def name_of(error: BaseException) -> str:
    """The name that `error_named` takes back."""
    return "builtins.TimeoutError" if type(error) is builtins.TimeoutError else type(error).__name__
