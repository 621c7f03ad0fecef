"""`minimodal image`: make, list and remove images. So far: `bootstrap`."""

from __future__ import annotations

import sys

from .failure import UsageError
from .parser import Parser, load_settings

COMMANDS = {"bootstrap": "make python:3.11-slim from Debian's packages, without an image registry"}


def main(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("-h", "--help"):
        print("usage: minimodal image COMMAND …\n\ncommands:")
        for command, about in COMMANDS.items():
            print(f"  {command:<15} {about}")
        return 0
    if name not in COMMANDS:
        said = f"{name!r} is no command of `minimodal image`." if name else "no command was given."
        raise UsageError(said, choices=list(COMMANDS), hint="minimodal image --help")
    return _bootstrap(rest)


def _bootstrap(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal image bootstrap",
        "Make a base image from Debian's packages and leave it in the Docker engine as "
        "python:VERSION-slim.",
        "minimodal image bootstrap --python 3.11",
    )
    parser.add_argument("--python", default="3.11", metavar="VERSION", help="3.11 or 3.13")
    parser.add_argument("--mirror", metavar="URL", help="where Debian's packages come from")
    parser.add_argument("--force", action="store_true", help="anew, whatever is there")
    parser.add_argument("--docker-host", metavar="URL", help="the Docker engine to leave it in")
    parser.add_argument("-q", "--quiet", action="store_true", help="errors only")
    options = parser.parse(arguments)
    config = load_settings({"docker_host": options.docker_host})

    import anyio

    from minimodal.backends.docker_connect import open_first
    from minimodal.home import open_home
    from minimodal.images.bootstrap import bootstrap, release_of

    release_of(options.python)

    def report(line: str) -> None:
        if not options.quiet:
            print(line, file=sys.stderr, flush=True)

    async def make() -> str:
        home = open_home(config.home)
        async with open_first(config.docker_host) as api:
            return await bootstrap(
                api,
                home,
                options.python,
                report,
                mirror=options.mirror,
                force=options.force,
            )

    print(anyio.run(make))
    return 0
