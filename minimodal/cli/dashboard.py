"""`minimodal dashboard`: the address of the dashboard, in the engine that runs or in one of its own."""

from __future__ import annotations

from .engines import ask, open_engines
from .parser import Parser, add_backend, load_settings
from .screen import Screen


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal dashboard",
        "Say where the dashboard is: of `minimodal up`, or of another engine of this home. Where none\n"
        "runs, host one until Ctrl-C; it shows what is on record.",
        "minimodal dashboard",
    )
    add_backend(parser)
    options = parser.parse(arguments)
    with open_engines() as engines:
        if engines.reached:
            print(ask(engines.reached[0].connection, "gateway.open")["url"])
            return 0
    config = load_settings(backend=options.backend)
    from minimodal.host import Host

    host = Host(config, role="dashboard")
    with Screen().of(host):
        print(host.open_gateway(), flush=True)
        host.wait()
    return 0
