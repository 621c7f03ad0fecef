"""Commands that have commands: `minimodal calls list`. Each is a function of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from .failure import UsageError, nearest
from .parser import Parser, add_json, show


class Sub(NamedTuple):
    run: Callable[[list[str]], int]
    about: str


def dispatch(command: str, subs: Mapping[str, Sub], arguments: list[str], example: str) -> int:
    """Run the one that is named first."""
    show(subs)
    if not arguments or arguments[0] in ("-h", "--help"):
        rows = "\n".join(f"  {name:<10} {sub.about}" for name, sub in subs.items())
        usage = f"usage: minimodal {command} COMMAND …\n\ncommands:\n{rows}\n\nexample: {example}"
        if arguments:
            print(usage)
            return 0
        raise UsageError(
            "no command was given.",
            choices=[f"minimodal {command} {name}" for name in subs],
            hint=f"minimodal {command} --help",
        )
    name, *rest = arguments
    if name not in subs:
        near = nearest(name, subs)
        raise UsageError(
            f"{name!r} is no command of `minimodal {command}`.",
            choices=() if near else list(subs),
            hint=f"minimodal {command} {near}" if near else f"minimodal {command} --help",
        )
    return subs[name].run(rest)


def listing_parser(prog: str, about: str, example: str) -> Parser:
    """A parser with the option that every listing has."""
    parser = Parser(f"minimodal {prog}", about, f"minimodal {example}")
    add_json(parser)
    return parser


def add_filters(parser: Parser, *, call: bool = False) -> None:
    parser.add_argument("--app", help="only of this app")
    parser.add_argument("--function", help="only of this function: name, or app/name")
    if call:
        parser.add_argument("--call", metavar="ID", help="only of this call")
