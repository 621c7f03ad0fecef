"""`minimodal config`: the settings in force, and where each came from."""

from __future__ import annotations

from .listing import print_json
from .parser import Parser, add_json, load_settings


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal config",
        "Show the settings in force. Strongest first they come from arguments, MINIMODAL_* variables,\n"
        "[tool.minimodal] in pyproject.toml, config.toml of the user, defaults.",
        "minimodal config --show-origin",
    )
    parser.add_argument("--show-origin", action="store_true", help="say where each value came from")
    add_json(parser)
    options = parser.parse(arguments)
    config = load_settings()
    from minimodal.config import plain_value, settings, user_file

    rows = [(name, getattr(config, name), config.origin(name), about) for name, about in settings()]
    if options.json:
        values = {
            name: {"value": plain_value(value), "origin": origin} for name, value, origin, _ in rows
        }
        print_json("config", {"file": str(user_file(config)), "settings": values})
        return 0
    for name, value, origin, about in rows:
        shown = "" if value is None else str(value).lower() if isinstance(value, bool) else value
        note = origin if options.show_origin else about
        print(f"{name:<14} {shown!s:<14} {note}")
    return 0
