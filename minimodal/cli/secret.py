"""`minimodal secret`: the stored secrets of this home. Values go in and are never shown."""

from __future__ import annotations

import sys
from pathlib import Path

from minimodal.secret import Secret

from .failure import UsageError
from .group import delete_command, dispatch, list_command
from .parser import Parser, load_settings


def main(arguments: list[str]) -> int:
    return dispatch("secret", COMMANDS, arguments)


def _create(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal secret create",
        "Store a secret, encrypted.\n\n"
        "KEY=VALUE is seen in the shell's history and the list of processes; KEY=- reads the value\n"
        "from stdin, or asks for it; KEY=@FILE reads a file.",
        "minimodal secret create api API_KEY=-",
    )
    parser.add_argument("name")
    parser.add_argument("pairs", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--from-dotenv", metavar="FILE", help="all variables of a .env file")
    parser.add_argument("-f", "--force", action="store_true", help="replace one that exists")
    options = parser.parse(arguments)
    values = _from_dotenv(options.from_dotenv) if options.from_dotenv else {}
    for pair in options.pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(
                f"{pair.partition('=')[0]!r} has no value.", hint=f"{key}=- asks for it"
            )
        values[key] = _value(key, value)
    if not values:
        raise UsageError("a secret needs variables.", hint="minimodal secret create --help")
    if options.force:
        Secret.from_name(options.name).set(values)
    else:
        Secret.objects.create(options.name, values)
    return 0


def _from_dotenv(path: str) -> dict[str, str]:
    secret = Secret.from_dotenv(path)
    assert secret._source is not None
    return dict(secret._source.read())


def _value(key: str, text: str) -> str:
    if text.startswith("@"):
        return Path(text[1:]).read_text(encoding="utf-8")
    if text != "-":
        return text
    if sys.stdin.isatty():
        import getpass

        return getpass.getpass(f"{key}: ")
    return sys.stdin.read().removesuffix("\n")


def _rotate(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal secret rotate",
        "Encrypt all secrets with a new key. It may be interrupted at any time.",
        "minimodal secret rotate",
    )
    parser.parse(arguments)
    from minimodal.engine.secret_files import SecretFiles
    from minimodal.home import open_home

    count = SecretFiles(open_home(load_settings().home)).rotate()
    print(f"{count} secrets are encrypted with a new key", file=sys.stderr)
    return 0


COMMANDS = {
    "list": (list_command("secret", Secret, "create NAME KEY=-"), "list their names"),
    "create": (_create, "store one, encrypted"),
    "delete": (delete_command("secret", Secret, lambda _: ""), "delete one"),
    "rotate": (_rotate, "encrypt all with a new key"),
}
