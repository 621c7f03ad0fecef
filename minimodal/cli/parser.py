"""`Parser`: argparse with our way of refusing, suggestions for misspelt options, and an example."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from .failure import UsageError, nearest


class Found(BaseException):
    """Raised instead of parsing within `inspecting()`: the parser, or the table of subcommands."""

    def __init__(self, what: Any) -> None:
        self.what = what


_looks = 0  # open inspecting() blocks


@contextmanager
def inspecting() -> Iterator[None]:
    """Let commands raise `Found` where they would read their arguments: for completion."""
    global _looks
    _looks += 1
    try:
        yield
    finally:
        _looks -= 1


def show(what: Any) -> None:
    """Raise `Found` with it, within `inspecting()`."""
    if _looks:
        raise Found(what)


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting; `--help` prints and raises SystemExit(0)."""

    def __init__(self, prog: str, about: str, example: str = "") -> None:
        super().__init__(
            prog=prog,
            description=about,
            epilog=f"example: {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def format_help(self) -> str:
        if self.epilog is None:
            self.epilog = f"example: {self._plainest()}"
        return super().format_help()

    def _plainest(self) -> str:
        """The shortest line that the command takes: its name and what it cannot do without."""
        needed = [
            str(action.metavar or action.dest).upper()
            for action in self._actions
            if not action.option_strings and action.nargs not in ("?", "*")
        ]
        return " ".join([self.prog, *needed])

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse all of `arguments`; what is left over is refused with the nearest option."""
        show(self)
        parsed, extra = self.parse_known_args(arguments)
        if extra:
            self._refuse(extra)
        return parsed

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}.", hint=f"{self.prog} --help")

    def _refuse(self, extra: list[str]) -> NoReturn:
        options = [name for name in self._option_string_actions if name.startswith("--")]
        for word in extra:
            if word.startswith("-"):
                name = word.partition("=")[0]
                near = nearest(name, options) or nearest(name.replace("_", "-"), options)
                raise UsageError(
                    f"{self.prog}: there is no option {name}.",
                    hint=near or f"{self.prog} --help",
                )
        raise UsageError(
            f"{self.prog}: nothing takes {' '.join(extra)!r}.",
            hint=f"give values to options by name; {self.prog} --help lists them",
        )


def add_backend(parser: argparse.ArgumentParser) -> None:
    """The option that each command which runs containers has."""
    parser.add_argument(
        "--backend",
        metavar="B",
        help="where containers run: auto, docker, bubblewrap or process",
    )


def add_script(parser: argparse.ArgumentParser) -> None:
    """What commands about all apps of a script have."""
    parser.add_argument("reference", metavar="REF", help="script.py, or script.py::app")
    add_module(parser)


def add_module(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m", dest="module", action="store_true", help="REF is a module, not a file"
    )


def add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-e", "--env", help="accepted for scripts that call Modal's; there is one environment"
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--progress",
        choices=["auto", "plain", "none"],
        default="auto",
        help="a live tree on a terminal, plain lines, or nothing (as -q)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")


def add_yes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def load_settings(**arguments: Any) -> Any:
    """`load_config`, where a wrong setting is a wrong command line: exit code 2.

    A home that it names is the home of all that this process opens from here on.
    """
    from minimodal.config import load_config
    from minimodal.errors import InvalidError

    try:
        config = load_config(arguments)
    except InvalidError as error:
        raise UsageError(str(error)) from error
    if config.home is not None:
        os.environ["MINIMODAL_HOME"] = str(config.home)
    return config
