"""Modal's module name for the errors: `from minimodal.exception import InvalidError`.

Scripts also catch, or filter, what only Modal's own servers and client can bring about: those names
are here, so that their imports and `except` clauses work, and nothing raises them.
"""

from .errors import *  # noqa: F403
from .errors import Error, NotRunningError, TimeoutError

ClientClosed = NotRunningError
"""A handle was used while no engine could be reached."""


class ExecTimeoutError(TimeoutError):
    """Never raised: a process of `Sandbox.exec` whose time is over has the exit code -1."""


class InternalError(Error):
    """Never raised: a bug of ours is the error that it is."""


class DeprecationError(UserWarning):
    """Never given: for scripts that filter Modal's."""


class PendingDeprecationError(UserWarning):
    """Never given: for scripts that filter Modal's."""


class ServerWarning(UserWarning):
    """Never given: there is no server that could warn."""


class AsyncUsageWarning(UserWarning):
    """Never given: blocking calls work under a running loop."""
