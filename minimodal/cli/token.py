"""`minimodal token`: who may use the platform from elsewhere than this machine."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from .failure import UsageError
from .parser import Parser, load_settings

if TYPE_CHECKING:
    from minimodal.gateway.tokens import TokenFile

COMMANDS = {
    "create": "make a token and print it, once",
    "list": "show the tokens: id, user, scopes, age",
    "revoke": "make a token worthless, at once",
}


def main(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("-h", "--help"):
        print("usage: minimodal token COMMAND …\n\ncommands:")
        for command, about in COMMANDS.items():
            print(f"  {command:<15} {about}")
        return 0
    if name not in COMMANDS:
        said = f"{name!r} is no command of `minimodal token`." if name else "no command was given."
        raise UsageError(said, choices=list(COMMANDS), hint="minimodal token --help")
    return {"create": _create, "list": _list, "revoke": _revoke}[name](rest)


def _tokens() -> TokenFile:
    from minimodal.gateway.tokens import TokenFile
    from minimodal.home import open_home

    return TokenFile(open_home(load_settings({}).home).config / "tokens.json")


def _create(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal token create",
        "Make a token. It is shown this once; only its hash is kept.",
        "minimodal token create --user ada --scope read --days 30",
    )
    parser.add_argument("--user", default="default", help="whose calls and requests they are")
    parser.add_argument(
        "--scope",
        action="append",
        choices=["read", "write", "web"],
        help="read: look; write: retry, cancel, stop; web: endpoints that require it; default: all",
    )
    parser.add_argument("--days", type=float, help="how long it is good for; default: for ever")
    options = parser.parse(arguments)
    from minimodal.gateway.tokens import SCOPES

    tokens = _tokens()
    seconds = None if options.days is None else options.days * 86_400
    print(tokens.create(options.user, tuple(options.scope or SCOPES), seconds))
    return 0


def _list(arguments: list[str]) -> int:
    parser = Parser("minimodal token list", "Show the tokens.", "minimodal token list --json")
    parser.add_argument("--json", action="store_true", help="one JSON object for each token")
    options = parser.parse(arguments)
    tokens = _tokens()
    for each in tokens.all():
        if options.json:
            row = {"id": each.id, "user": each.user, "scopes": each.scopes}
            print(json.dumps({**row, "created": each.created, "expires": each.expires}))
        else:
            age = (time.time() - each.created) / 86_400
            ended = each.expires is not None and each.expires < time.time()
            scopes = ",".join(each.scopes)
            print(f"{each.id}  {each.user:<16} {scopes:<16} {age:.0f} days{' expired' * ended}")
    return 0


def _revoke(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal token revoke", "Make a token worthless.", "minimodal token revoke 3f2a9c01"
    )
    parser.add_argument("id", help="as `minimodal token list` shows it")
    options = parser.parse(arguments)
    tokens = _tokens()
    tokens.revoke(options.id)
    return 0
