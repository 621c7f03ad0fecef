"""The program: which command was asked for, and what its failure looks like from outside.

Each command is a module of this folder with `main(arguments) -> exit code`, imported when it is
asked for. `--version` and `--help` import none of them.
"""

from __future__ import annotations

import gc
import os
import sys

from minimodal import __version__
from minimodal.garbage import RareCollections

COMMANDS = {
    "init": "write a starter script that runs as it is",
    "run": "run a script's entrypoint, or one of its functions",
    "serve": "run a script's apps, and replace them when a file changes",
    "deploy": "record a version of a script's apps, to be served by `up`",
    "up": "host everything that is deployed",
    "dashboard": "open the dashboard's port and say its address",
    "app": "list apps, their versions and logs; roll back, stop",
    "logs": "show what functions print",
    "schedule": "list what runs by the clock; pause, resume, run now",
    "ps": "show what runs now",
    "calls": "list, show and cancel calls",
    "dlq": "list, show, retry and purge calls that failed for good",
    "shell": "a terminal in a function's image, or in any image",
    "doctor": "say which backends work here, and why the others do not",
    "image": "list, build, inspect and remove images; make a base without a registry",
    "volume": "files that outlive containers: list, put, get, …",
    "secret": "environment variables of functions, kept encrypted",
    "dict": "named dicts and their entries",
    "queue": "named queues and their items",
    "user": "weights and quotas of users",
    "token": "make, list and revoke tokens for the API and for endpoints that need one",
    "clean": "free the disk of what can be made again",
    "completion": "make bash, zsh or fish complete commands and names",
    "config": "show the settings in force, and where each came from",
}

HELP = """\
usage: minimodal [--debug] [--color WHEN] COMMAND …

A serverless platform for Python in one process. `minimodal COMMAND --help` says more.

commands:
{commands}

options:
  -h, --help      this help
  -V, --version   the version, and which Python and files it runs from
  --debug         show full tracebacks, with the platform's own frames
  --color WHEN    auto, always or never (NO_COLOR and FORCE_COLOR are honoured too)

exit codes:
  0 done · 1 your code or its build failed · 2 the command line is wrong
  130 stopped by Ctrl-C · 143 terminated · an entrypoint's SystemExit(n) gives n

example: minimodal run examples/hello.py
"""


def program() -> int:
    """`main` with a process of its own."""
    with RareCollections():
        code = main()
    gc.freeze()  # Python's last look for garbage would take 30 ms, to free what goes with the process
    return code


def main(arguments: list[str] | None = None) -> int:
    """Run the program and give its exit code. Never raises."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = _dispatch(list(given))
        sys.stdout.flush()  # a reader that went away shows here, not in a message at exit
        return code
    except BaseException as error:
        from .failure import show

        return show(error)


def _dispatch(arguments: list[str]) -> int:
    while arguments:
        first = arguments.pop(0)
        if first in ("-h", "--help", "help"):
            rows = (f"  {name:<15} {about}" for name, about in COMMANDS.items())
            print(HELP.format(commands="\n".join(rows)), end="")
            return 0
        if first in ("-V", "--version"):
            print(_version())
            return 0
        if first == "--debug":
            os.environ["MINIMODAL_DEBUG"] = "1"
        elif first == "--color" or first.startswith("--color="):
            value = first.partition("=")[2] or (arguments.pop(0) if arguments else "")
            _choose_color(value)
        elif first in COMMANDS:
            return _command(first, arguments)
        else:
            raise _not_a_command(first)
    from .failure import UsageError

    raise UsageError("no command was given.", choices=list(COMMANDS), hint="minimodal --help")


def _command(name: str, arguments: list[str]) -> int:
    import importlib

    from .interrupts import Interrupts

    command = importlib.import_module(f"minimodal.cli.{name}")
    with Interrupts():
        code: int = command.main(arguments)
    return code


def _version() -> str:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"minimodal {__version__} (Python {python}, {package})"


def _choose_color(when: str) -> None:
    for variable in ("NO_COLOR", "FORCE_COLOR") if when != "auto" else ():
        os.environ.pop(variable, None)
    if when == "always":
        os.environ["FORCE_COLOR"] = "1"
    elif when == "never":
        os.environ["NO_COLOR"] = "1"
    elif when != "auto":
        from .failure import UsageError

        raise UsageError(f"--color {when!r} is not possible.", choices=["auto", "always", "never"])


def _not_a_command(word: str) -> Exception:
    from .failure import UsageError, nearest

    if word.startswith("-"):
        return UsageError(f"there is no option {word}.", hint="minimodal --help")
    if word.partition("::")[0].endswith(".py"):
        return UsageError(f"{word!r} is no command.", hint=f"minimodal run {word}")
    near = nearest(word, COMMANDS)
    if near:
        return UsageError(f"{word!r} is no command.", hint=f"minimodal {near}")
    return UsageError(f"{word!r} is no command.", choices=list(COMMANDS))
