"""`minimodal logs`: what functions print: the last lines, and with -f the next ones."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

from .engines import Engines, Reached, ask, open_engines
from .listing import iso
from .parser import Parser
from .subcommands import add_filters
from .terminal import paint_source

POLL = 30.0  # seconds that one question for new lines waits


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal logs",
        "Show what functions of the engines that run now have printed, each line behind the\n"
        "function's name. What went to stderr goes to stderr.",
        "minimodal logs -f --app shop",
    )
    add_filters(parser, call=True)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    parser.add_argument("-n", "--lines", type=int, default=100, help="at most so many (100)")
    parser.add_argument("--timestamps", action="store_true", help="the time of each line, in UTC")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    options = parser.parse(arguments)
    app, function = options.app, options.function
    if function and "/" in function:
        app, _, function = function.partition("/")
    wanted = {"app": app, "function": function, "call": options.call, "kinds": ["log"]}
    with open_engines() as engines:
        engines.need_one()
        last: dict[str, int] = {}
        lines: list[dict[str, Any]] = []
        for engine in engines.reached:
            found, last[engine.info.id] = past(engine, wanted)
            lines += found
        lines.sort(key=lambda line: line["at"])
        for line in lines[max(0, len(lines) - options.lines) :]:
            _show(line, options)
        if options.follow:
            for line in following(engines, last, wanted):
                _show(line, options)
    return 0


def past(engine: Reached, wanted: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """The events that an engine remembers, and the number to go on from."""
    lines: list[dict[str, Any]] = []
    last = 0
    while True:
        answer = ask(engine.connection, "event.list", after=last, **wanted)
        lines += answer["events"]
        last = answer["last"]
        if not answer["events"]:
            return lines, last


def following(
    engines: Engines, last: dict[str, int], wanted: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """New events of all engines as they come, until the last engine has stopped."""
    lines: queue.Queue[dict[str, Any] | None] = queue.Queue(maxsize=10_000)
    for engine in engines.reached:
        reader = threading.Thread(
            target=_read, args=(engine, last[engine.info.id], wanted, lines), daemon=True
        )
        reader.start()
    left = len(engines.reached)
    while left:
        line = lines.get()
        if line is None:
            left -= 1
        else:
            yield line


def _read(engine: Reached, last: int, wanted: dict[str, Any], lines: queue.Queue[Any]) -> None:
    from minimodal.errors import Error

    try:
        while True:
            answer = ask(engine.connection, "event.list", after=last, timeout=POLL, **wanted)
            last = answer["last"]
            for line in answer["events"]:
                lines.put(line)
    except Error:
        lines.put(None)  # the engine has stopped


def _show(line: dict[str, Any], options: Any) -> None:
    if options.json:
        import json

        print(json.dumps({**line, "at": iso(line["at"])}), flush=True)
        return
    stream = sys.stderr if line["stream"] == "stderr" else sys.stdout
    time = f"{iso(line['at'])} " if options.timestamps else ""
    source = paint_source(line["name"], stream)
    print(f"{time}{source} {line['text']}", file=stream, flush=True)
