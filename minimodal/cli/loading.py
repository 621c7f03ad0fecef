"""The process in which `minimodal serve` imports the script: a new one for each version of it.

So a broken edit, a module's old state or an import that hangs cannot hurt the engine. It sends the apps
to the engine's socket under the ids that it is given, and reports through a pipe which files it took.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minimodal.bytecode import forget_doubtful
from minimodal.layers import LocalFile

from .choice import apps_of
from .failure import show
from .reference import find, load, parse

if TYPE_CHECKING:
    from types import ModuleType

    from minimodal.app import App


def main() -> int:
    """Arguments: descriptor for reports, engine's socket, app id, whether it's a module, reference."""
    report, socket, app_id, is_module, reference = sys.argv[1:]
    from minimodal import context
    from minimodal.connection import Connection

    client = Connection(socket)
    context.set_client(client)
    try:
        with os.fdopen(int(report), "w", buffering=1) as reports:

            def say(**fields: Any) -> None:
                print(json.dumps(fields), file=reports)

            script = find(parse(reference, is_module=is_module == "1"))
            say(files=[str(script.path)])
            sys.argv = [str(script.path)]
            module = load(script)
            files = _files(module)
            forget_doubtful([Path(file) for file in files])  # the next change may come at once
            say(files=files)
            for number, app in enumerate(apps_of(script, module)):
                say(files=list(_mounted(app)))
                _send(app, client, f"{app_id}-{number}")
                functions = [*app.registered_functions, *app.registered_classes]
                say(app=app.name or app_id, id=f"{app_id}-{number}", functions=functions)
    except BaseException as error:
        return show(error)
    return 0


def _send(app: App, client: Any, app_id: str) -> None:
    from minimodal.face import block

    block(app._send(client, app_id, keep=True))


def _files(module: ModuleType) -> list[str]:
    """The project's own files that it imports: all that travel with it."""
    from minimodal.sources import collect

    return [str(path) for path in collect(module).files.values()]


def _mounted(app: App) -> Iterator[str]:
    """What its images take from this machine: files, and directories."""
    registered = [*app.registered_functions.values(), *app.registered_classes.values()]
    images = {id(image): image for each in registered if (image := each._options.image)}
    for image in [*images.values(), app._default_image()]:
        yield from _local(image.spec())


def _local(value: Any) -> Iterator[str]:
    """The host paths of the files in a spec."""
    if isinstance(value, LocalFile):
        yield value.source
    elif isinstance(value, tuple):
        for each in value:
            yield from _local(each)


if __name__ == "__main__":
    sys.exit(main())
