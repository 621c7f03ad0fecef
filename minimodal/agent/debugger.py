"""pdb in a container: it talks to the user's terminal where the platform was started with `-i`.

`breakpoint()`, `pdb.set_trace()` and `pdb.post_mortem()` all make a `pdb.Pdb`, so replacing that
class before the user's code is loaded is enough.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from minimodal import context
from minimodal.errors import InvalidError

OURS = ("minimodal", "minimodal.*")  # where a debugger never stops


def install(interactive: bool) -> None:
    """Before the user's code is loaded."""
    if not interactive:
        sys.breakpointhook = _refuse
        return
    import pdb

    pdb.Pdb = _debugger(pdb.Pdb)  # type: ignore[misc]  # on purpose


def _refuse(*_: Any, **__: Any) -> None:
    if os.environ.get("PYTHONBREAKPOINT") != "0":
        raise InvalidError(f"breakpoint() in {_function()} needs your terminal: {WAY_OUT}")


def explained(error: BaseException) -> BaseException:
    """pdb gives up when it has nobody to ask: say what is missing."""
    if type(error).__name__ == "BdbQuit" and sys.breakpointhook is _refuse:
        told = InvalidError(f"the debugger in {_function()} needs your terminal: {WAY_OUT}")
        return told.with_traceback(error.__traceback__)
    return error


WAY_OUT = "start it with minimodal run -i script.py"


def _function() -> str:
    return context.container.function if context.container else "this container"


def _debugger(plain: Any) -> Any:
    from . import terminal

    class Debugger(plain):  # type: ignore[misc]  # pdb.Pdb, whichever Python it is of
        """A Pdb that has the terminal from its first question until the code goes on by itself."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            if len(args) < 4:  # skip is the fourth
                kwargs["skip"] = [*(kwargs.get("skip") or ()), *OURS]
            super().__init__(*args, **kwargs)

        def interaction(self, *args: Any, **kwargs: Any) -> Any:
            if self.use_rawinput:  # else it was given streams of its own
                terminal.take()
                self.stdin, self.stdout = sys.stdin, sys.stdout
            return super().interaction(*args, **kwargs)

        def set_continue(self) -> None:
            super().set_continue()
            terminal.give_back()

        def set_quit(self) -> None:
            super().set_quit()
            terminal.give_back()

    Debugger.__name__ = Debugger.__qualname__ = "Pdb"
    return Debugger
