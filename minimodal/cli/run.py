"""`minimodal run`: load a script, host the platform in this process, run what is named, stop."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from minimodal.progress import shown_seconds

from .failure import UsageError
from .parser import Parser, add_backend, add_env, add_module, add_progress, load_settings
from .reference import Script, find, is_program, load, parse, run_program
from .screen import Screen

if TYPE_CHECKING:
    import argparse

    from minimodal.host import Host

    from .choice import Target

WITH_VALUE = {
    "-n",
    "--name",
    "-w",
    "--write-result",
    "-e",
    "--env",
    "--backend",
    "--progress",
    "--env-file",
}


def main(arguments: list[str]) -> int:
    own, reference, rest = split(arguments)
    options = _parser().parse(own)
    if reference is None:
        raise UsageError("minimodal run needs a script.", hint="minimodal run examples/hello.py")
    if options.interactive:
        from .debugging import require_terminal

        require_terminal()
    config = load_settings(backend=options.backend)
    from minimodal.app import enable_output

    if options.env_file:
        _read_env_file(options.env_file)
    script = find(parse(reference, is_module=options.module))
    sys.argv = [str(script.path), *rest]
    quiet = options.quiet or options.progress == "none"
    plain = options.progress == "plain"
    with (
        Screen(quiet=quiet, plain=plain, as_json=options.json) as screen,
        _host(config) as host,
    ):
        host.subscribe(screen.event)
        screen.running_of, screen.totals = host.running_of, host.totals
        if not script.reference.target and is_program(script):
            with host, enable_output(not quiet), _terminal(options, host, screen):
                run_program(script)
        else:
            target, call = _prepare(script, rest)
            with host, enable_output(not quiet), _terminal(options, host, screen):
                result = _run_target(options, target, call, screen, host)
            if options.write_result:
                _write(options.write_result, target.name, result)
        screen.say(f"Completed in {screen.elapsed()}{summary(host.totals())}", "done")
    return 0


def summary(totals: dict[str, Any]) -> str:
    """`: 600 calls, 12 failed, 4 containers, 28.1 s of work`; nothing where no call was made."""
    calls, failed, containers = (int(totals[name]) for name in ("calls", "failed", "containers"))
    if not calls:
        return ""
    parts = [f"{calls:,} call{'s' * (calls != 1)}"]
    parts += [f"{failed:,} failed"] * bool(failed)
    parts += [f"{containers:,} container{'s' * (containers != 1)}"]
    return f": {', '.join(parts)}, {shown_seconds(totals['busy'])} of work"


def split(arguments: Sequence[str]) -> tuple[list[str], str | None, list[str]]:
    """Our options, the reference, and what belongs to the script: everything behind it."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        if arguments[index] == "--":
            own, index = list(arguments[:index]), index + 1
            break
        index += 2 if arguments[index] in WITH_VALUE else 1
    else:
        own = list(arguments[:index])
    reference = arguments[index] if index < len(arguments) else None
    return own, reference, list(arguments[index + 1 :])


def _parser() -> Parser:
    parser = Parser(
        "minimodal run",
        "Run a script's entrypoint, or one of its functions in a container.\n\n"
        "  minimodal run [options] script.py[::function] [arguments of the function]\n"
        "  minimodal run [options] -m package.module[::function] [arguments]\n\n"
        "`minimodal run script.py --help` lists the arguments. A script without an entrypoint that\n"
        'has an `if __name__ == "__main__":` block is run as a program.',
        "minimodal run examples/hello.py --n 5",
    )
    add_module(parser)
    parser.add_argument(
        "-i",
        "--interactive",
        action="store_true",
        help="breakpoint(), pdb and interact() in a container get this terminal",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="only what your code prints")
    parser.add_argument("-n", "--name", help="name of this run of the app")
    parser.add_argument(
        "-w", "--write-result", metavar="FILE", help="write what it returns (text or bytes) to FILE"
    )
    parser.add_argument(
        "-d",
        "--detach",
        action="store_true",
        help="at its end, wait until all its calls have ended",
    )
    add_env(parser)
    parser.add_argument(
        "--json", action="store_true", help="events on stdout, one JSON object a line, for programs"
    )
    parser.add_argument(
        "--env-file",
        metavar="FILE",
        help="environment variables for the script and its functions, as lines NAME=value",
    )
    add_progress(parser)
    add_backend(parser)
    return parser


def _read_env_file(path: str) -> None:
    """Set its variables here, and make them a secret of the apps that the script will define."""
    from minimodal import context
    from minimodal.secret import Secret, read_dotenv

    if not os.path.isfile(path):
        raise UsageError(f"--env-file: there is no file {path}.")
    values = read_dotenv(path)
    os.environ.update(values)
    context.run_secrets = (Secret.from_dict(values),)


def _prepare(script: Script, rest: list[str]) -> tuple[Target, Callable[[], Any]]:
    """Import the script, find the target and read its arguments; nothing is started yet."""
    from .arguments import parse as parse_arguments
    from .choice import choose

    module = load(script)
    target = choose(script, module)
    prog = f"minimodal run {script.spell(target.name) if script.reference.target else script.reference}"
    args, kwargs = parse_arguments(target.raw, prog, rest)
    return target, target.caller(args, kwargs)


@contextmanager
def _host(config: Any) -> Iterator[Host]:
    """The engine of this run, not started yet; a script that calls a function while it is imported
    starts it earlier than we do."""
    from minimodal.host import Host, set_ambient

    host = Host(config)
    set_ambient(host)
    try:
        yield host
    finally:
        set_ambient(None)
        host.stop()


def _terminal(
    options: argparse.Namespace, host: Host, screen: Screen
) -> AbstractContextManager[None]:
    if not options.interactive:
        return nullcontext()
    from .debugging import given

    return given(host, screen)


def _run_target(
    options: argparse.Namespace,
    target: Target,
    call: Callable[[], Any],
    screen: Screen,
    host: Host,
) -> Any:
    with target.app.run(name=options.name, detach=options.detach) as app:
        functions = ", ".join([*app.registered_functions, *app.registered_classes])
        screen.say(f"Created {app.name or 'app'}{': ' if functions else ''}{functions}", "done")
        result = call()
        if inspect.iscoroutine(result):
            result = _await(result)
        if options.detach:
            host.wait_idle()
    return result


def _await(coroutine: Any) -> Any:
    import anyio

    async def run() -> Any:
        return await coroutine

    return anyio.run(run)


def _write(path: str, name: str, result: Any) -> None:
    if not isinstance(result, str | bytes):
        raise UsageError(
            f"{name} returned {type(result).__name__}, and -w writes text or bytes only.", code=1
        )
    try:
        with open(path, "wb") as file:
            file.write(result.encode() if isinstance(result, str) else result)
    except OSError as error:
        raise UsageError(
            f"the result cannot be written to {path}: {error.strerror}.", code=1
        ) from None
