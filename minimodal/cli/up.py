"""`minimodal up`: host everything that is deployed in this home, until it is stopped."""

from __future__ import annotations

import os

from .engines import ask
from .parser import Parser, add_backend, add_progress, load_settings
from .screen import Screen


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal up",
        "Host everything that is deployed: calls by name from other programs, schedules, endpoints.\n"
        "Unfinished calls go on where they were. `minimodal deploy` changes what it hosts while it\n"
        "runs. One runs at a time in a home.",
        "minimodal up --backend bubblewrap",
    )
    add_backend(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only what the functions print")
    add_progress(parser)
    options = parser.parse(arguments)
    config = load_settings(backend=options.backend)
    quiet = options.quiet or options.progress == "none"
    from minimodal.host import Host

    host = Host(config, role="up")
    with Screen(quiet=quiet, plain=options.progress == "plain").of(host) as screen:
        host.open_gateway()
        apps = [app for app in ask(host.client, "app.list")["apps"] if app["hosted"]]
        for app in apps:
            functions = ", ".join(app["functions"])
            screen.say(f"Hosts {app['name']}, version {app['version']}: {functions}", "done")
        if not apps:
            screen.say("Nothing is deployed yet: minimodal deploy script.py", "done")
        screen.say(f"Ready in {screen.elapsed()} (pid {os.getpid()})", "done")
        host.wait()
    return 0
