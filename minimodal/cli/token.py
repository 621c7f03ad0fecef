"""`minimodal token`: who may use the platform from elsewhere than this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .listing import ago, show
from .parser import Parser, load_settings
from .subcommands import Sub, dispatch, listing_parser

if TYPE_CHECKING:
    from minimodal.gateway.tokens import TokenFile


def main(arguments: list[str]) -> int:
    subs = {
        "create": Sub(_create, "make a token and print it, once"),
        "list": Sub(_list, "show the tokens: id, user, scopes, age"),
        "revoke": Sub(_revoke, "make a token worthless, at once"),
    }
    return dispatch("token", subs, arguments, "minimodal token create --user ada --scope read")


def _tokens() -> TokenFile:
    from minimodal.gateway.tokens import TokenFile
    from minimodal.home import open_home

    return TokenFile(open_home(load_settings().home).config / "tokens.json")


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
    parser = listing_parser("token list", "Show the tokens.", "token list --json")
    options = parser.parse(arguments)
    tokens = _tokens().all()
    names = ("id", "user", "scopes", "created", "expires")
    now = time.time()
    return show(
        options,
        "tokens",
        {"tokens": [{name: getattr(each, name) for name in names} for each in tokens]},
        ("token", "user", "scopes", "age", "expires"),
        [
            (
                each.id,
                each.user,
                ", ".join(each.scopes),
                ago(each.created),
                "expired" if (each.expires or now) < now else each.expires and ago(each.expires),
            )
            for each in tokens
        ],
        empty="there are no tokens",
    )


def _revoke(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal token revoke", "Make a token worthless.", "minimodal token revoke 3f2a9c01"
    )
    parser.add_argument("id", help="as `minimodal token list` shows it")
    options = parser.parse(arguments)
    tokens = _tokens()
    tokens.revoke(options.id)
    return 0
