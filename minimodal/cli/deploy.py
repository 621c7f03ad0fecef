"""`minimodal deploy`: record a version of a script's apps; a running `minimodal up` serves it at once."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .choice import apps_of
from .failure import UsageError
from .parser import Parser, add_backend, add_env, add_script, load_settings
from .reference import Script, find, load, parse
from .screen import Screen

if TYPE_CHECKING:
    from minimodal.app import App
    from minimodal.protocols import Client


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal deploy",
        "Record a new version of a script's apps: its sources, functions and images. The images are\n"
        "built and containers tried first; what doesn't start changes nothing. A running `minimodal\n"
        "up` serves the new version at once and lets running calls finish on the old one.",
        "minimodal deploy shop.py --name shop",
    )
    add_script(parser)
    parser.add_argument("-n", "--name", help="the name to deploy it under; left out: the app's own")
    parser.add_argument("--tag", default="", help="a note for `minimodal app history`")
    parser.add_argument("-q", "--quiet", action="store_true", help="errors only")
    add_env(parser)
    add_backend(parser)
    options = parser.parse(arguments)
    config = load_settings(backend=options.backend)
    script = find(parse(options.reference, is_module=options.module))
    sys.argv = [str(script.path)]
    apps = _apps(script, options.name)

    from minimodal.host import Host
    from minimodal.lookup import running_up

    with Screen(quiet=options.quiet) as screen:
        up = running_up()
        if up is not None:
            for app in apps:
                _deploy(app, up, options.tag, screen, served=True)
            return 0
        host = Host(config, role="deploy")
        host.subscribe(screen.event)
        with host:
            for app in apps:
                _deploy(app, host.client, options.tag, screen, served=False)
    return 0


def _apps(script: Script, name: str | None) -> list[App]:
    """The apps that are meant, each with a name. Raises UsageError."""
    found = apps_of(script, load(script))
    if name is not None:
        if len(found) > 1:
            raise UsageError(
                f"{script.reference} has several apps; --name is for one:",
                choices=[f"minimodal deploy {script.spell(each)}" for each in found.values()],
            )
        next(iter(found))._name = name
    for app, variable in found.items():
        if not app.name:
            raise UsageError(
                f"the app {variable} of {script.reference} has no name to be deployed under.",
                hint=f"minimodal deploy {script.reference} --name NAME",
            )
    return list(found)


def _deploy(app: App, client: Client, tag: str, screen: Screen, *, served: bool) -> None:
    from minimodal.face import block

    version = block(app._deploy(client, tag, host=served))
    where = "served now" if served else "served by the next `minimodal up`"
    functions = ", ".join([*app.registered_functions, *app.registered_classes])
    screen.say(f"Deployed {app.name}, version {version}, {where}: {functions}", "done")
