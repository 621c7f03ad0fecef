"""`minimodal shell`: a terminal in a function's image, or in any image, with its environment.

The terminal here is put into raw mode and joined to one in a sandbox; its size follows.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from minimodal.errors import Error

from .failure import UsageError
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
    config = load_settings({"backend": options.backend})
    if config.home is not None:
        os.environ["MINIMODAL_HOME"] = str(config.home)  # for all that opens the home later
    settings = _of_function(options.reference) if options.reference else {}
    if options.image:
        from minimodal.image import Image

        settings["image"] = Image.from_registry(options.image)
    command = ("sh", "-c", options.cmd) if options.cmd else LOGIN
    from minimodal.host import Host

    with Screen(quiet=not options.verbose) as screen, Host(config) as host:
        host.subscribe(screen.event)
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
        with _raw() if here else _as_it_is(), _input(process, here):
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
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _raw() -> Iterator[None]:
    """Keys go to the other side as they are pressed, Ctrl-C too."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _input(process: ContainerProcess[Any], terminal: bool) -> Iterator[None]:
    """Move this terminal's input and sizes to the process, in a thread, for the block."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)

    def resized(*_: object) -> None:
        with suppress(BlockingIOError):
            os.write(waker, b"r")

    before = signal.signal(signal.SIGWINCH, resized) if terminal else None
    thread = threading.Thread(target=_move, args=(process, wake, terminal), daemon=True)
    thread.start()
    try:
        yield
    finally:
        if terminal:
            signal.signal(signal.SIGWINCH, before)
        os.close(waker)
        thread.join(1)
        os.close(wake)


def _move(process: ContainerProcess[Any], wake: int, terminal: bool) -> None:
    reading = [0, wake]
    with suppress(Error, ValueError):  # the process has ended: nobody wants what is typed
        while wake in reading:
            for fd in select.select(reading, [], [])[0]:
                data = os.read(fd, 65536)
                if fd == wake and not data:
                    return  # the block is left
                if fd == wake:
                    size = os.get_terminal_size(0)  # not LINES and COLUMNS: those do not follow it
                    process.stdin.resize(size.lines, size.columns)
                elif data:
                    process.stdin.write(data)
                else:
                    process.stdin.write_eof()
                    reading.remove(0)
                process.stdin.drain()
