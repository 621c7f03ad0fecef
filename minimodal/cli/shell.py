"""`minimodal shell`: a terminal in a function's image, or in any image, with its environment.

The terminal here is put into raw mode and joined to one in a sandbox; its size follows.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from .failure import UsageError
from .keys import Typing, raw
from .parser import Parser, add_backend, load_settings
from .screen import Screen

if TYPE_CHECKING:
    from minimodal.sandbox import Sandbox
    from minimodal.sandbox_process import ContainerProcess

LIFE = 24 * 3600.0  # seconds
LOGIN = ("sh", "-c", "command -v bash >/dev/null && exec bash -i; exec sh -i")


def main(arguments: list[str]) -> int:
    options = _parser().parse(arguments)
    if options.reference and options.image:
        raise UsageError("give a function or --image, not both.")
    config = load_settings(backend=options.backend)
    settings = _of_function(options.reference) if options.reference else {}
    if options.image:
        from minimodal.image import Image

        settings["image"] = Image.from_registry(options.image)
    command = ("sh", "-c", options.cmd) if options.cmd else LOGIN
    from minimodal.host import Host

    with Screen(quiet=not options.verbose).of(Host(config)):
        return _run(command, settings)


def _parser() -> Parser:
    parser = Parser(
        "minimodal shell",
        "A shell in a new container: of a function's image, with its environment, secrets, volumes,\n"
        "cpu and memory, or of any image. Without a terminal it reads commands from its input.",
        "minimodal shell examples/hello.py::square -c 'python3 -V'",
    )
    parser.add_argument("reference", nargs="?", metavar="REF", help="script.py[::function]")
    parser.add_argument("-c", "--cmd", metavar="CMD", help="run this instead of a login shell")
    parser.add_argument(
        "--image", metavar="TAG", help="an image of a registry, such as python:3.11"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what is built")
    add_backend(parser)
    return parser


def _of_function(reference: str) -> dict[str, Any]:
    """What the sandbox takes over from a function or class."""
    from .choice import choose
    from .reference import find, load, parse

    script = find(parse(reference))
    sys.argv = [str(script.path)]
    target = choose(script, load(script))
    if target.is_local:
        raise UsageError(
            f"{target.name} runs in this process and has no container.",
            hint="minimodal shell with a function of @app.function()",
        )
    options = target.container_of._options
    names = ("env", "cpu", "memory", "block_network", "gpu")
    found = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    found["image"] = options.image or target.app._default_image()
    found["secrets"] = (*target.app._secrets, *(options.secrets or ()))
    found["volumes"] = {**target.app._volumes, **(options.volumes or {})}
    return found


def _run(command: tuple[str, ...], settings: dict[str, Any]) -> int:
    from minimodal.sandbox import Sandbox

    box: Sandbox = Sandbox.create(timeout=LIFE, **settings)
    try:
        here = sys.stdin.isatty() and sys.stdout.isatty()
        process = box.exec(*command, pty=here, text=False)
        with _typed_into(process, here):
            if not here:
                threading.Thread(target=_show, args=(process.stderr, 2), daemon=True).start()
            _show(process.stdout, 1)
        return int(process.wait())
    finally:
        box.terminate()


def _show(stream: Any, fd: int) -> None:
    for data in stream:
        while data:
            data = data[os.write(fd, data) :]


@contextmanager
def _typed_into(process: ContainerProcess[Any], terminal: bool) -> Iterator[None]:
    """Move this terminal's input and sizes to the process for the block."""

    def typed(data: bytes) -> None:
        if data:
            process.stdin.write(data)
        else:
            process.stdin.write_eof()
        process.stdin.drain()

    def resized(rows: int, columns: int) -> None:
        process.stdin.resize(rows, columns)
        process.stdin.drain()

    with raw() if terminal else nullcontext():
        typing = Typing(typed, resized if terminal else None)
        before = signal.signal(signal.SIGWINCH, typing.size_changed) if terminal else None
        try:
            yield
        finally:
            if terminal:
                signal.signal(signal.SIGWINCH, before)
            typing.stop()
