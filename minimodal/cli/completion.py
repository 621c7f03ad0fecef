"""`minimodal completion bash|zsh|fish`: a script for the shell, which asks us what could come next.

`words` answers: it knows the commands and options from their parsers, and a script's functions and
their parameters from its text. No script is ever imported, and nothing is started.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .failure import UsageError
from .parser import Found, Parser, inspecting

SHELLS = {
    "bash": """\
_minimodal() {
    local line="${COMP_LINE:0:COMP_POINT}" cur="${COMP_LINE:0:COMP_POINT}"
    cur="${cur##*[[:space:]]}"
    local IFS=$'\\n'
    COMPREPLY=($(minimodal completion words -- "$line" 2>/dev/null))
    # bash takes a colon for the end of a word, so what stands before it must not come again
    [[ $cur == *:* ]] && COMPREPLY=("${COMPREPLY[@]#"${cur%:*}:"}")
}
complete -o default -F _minimodal minimodal
""",
    "zsh": """\
#compdef minimodal
_minimodal() {
    local -a found
    found=("${(@f)$(minimodal completion words -- "${LBUFFER}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _minimodal minimodal
""",
    "fish": """\
complete -c minimodal -a '(minimodal completion words -- (commandline -cp) 2>/dev/null)'
""",
}
WITH_SCRIPT = ("run", "serve", "deploy", "shell")
GLOBAL = ("--help", "--version", "--debug", "--color")


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal completion",
        "Print the script that makes a shell complete commands, options, a script's functions and\n"
        "their parameters. In ~/.bashrc:  source <(minimodal completion bash)\n"
        "in ~/.zshrc:   source <(minimodal completion zsh)\n"
        "in fish:       minimodal completion fish > ~/.config/fish/completions/minimodal.fish",
        "minimodal completion bash >> ~/.bashrc",
    )
    parser.add_argument("shell", choices=[*SHELLS, "words"], metavar="bash|zsh|fish")
    parser.add_argument("line", nargs="?", default="", help="words: the line up to the cursor")
    options = parser.parse(arguments)
    if options.shell == "words":
        print("\n".join(words(options.line)))
    else:
        print(SHELLS[options.shell], end="")
    return 0


def words(line: str) -> list[str]:
    """What the last word of the line could become. Nothing: a file's name."""
    *before, current = line.split(" ")
    given = [word for word in before if word][1:]  # without the program's own name
    try:
        found = sorted(set(_candidates(given, current)))
    except (UsageError, OSError, SyntaxError, ValueError):
        return []
    return [word for word in found if word.startswith(current)]


def _candidates(given: list[str], current: str) -> Iterator[str]:
    from .main import COMMANDS

    while given and given[0].startswith("-"):
        given = given[2:] if given[0] == "--color" else given[1:]
    if not given:
        yield from GLOBAL if current.startswith("-") else COMMANDS
        return
    name, *rest = given
    if name not in COMMANDS:
        return
    if name in WITH_SCRIPT:
        from .run import split

        _, reference, _ = split([*rest, current])
        if reference == current and "::" in current:
            file = current.partition("::")[0]
            yield from (f"{file}::{each}" for each in functions_of(file))
            return
        if reference not in (None, current) and name == "run":
            yield from ["--help", *parameters_of(str(reference))]
            return
    yield from _of_command(name, rest, current)


def _of_command(name: str, rest: list[str], current: str) -> Iterator[str]:
    """Commands of a command, or options and their values, as its parser has them."""
    import importlib

    run = importlib.import_module(f"minimodal.cli.{name}").main
    found = _look_into(run)
    if not isinstance(found.what, Parser):
        if not rest:
            yield from found.what
            return
        if rest[0] not in found.what:
            return
        found = _look_into(found.what[rest[0]].run)
        rest = rest[1:]
    parser = found.what
    if not isinstance(parser, Parser):
        return
    actions = parser._option_string_actions
    before = actions.get(rest[-1]) if rest else None
    if before is not None and before.choices:
        yield from map(str, before.choices)
    elif current.startswith("-"):
        yield from (option for option in actions if option.startswith("--"))
    else:
        for action in parser._actions:
            if not action.option_strings and action.choices:
                yield from map(str, action.choices)


def _look_into(run: Any) -> Found:
    """The parser, or the commands, of a command: it is stopped before it reads anything."""
    import contextlib
    import io

    with inspecting(), contextlib.redirect_stdout(io.StringIO()):
        try:
            run(["--help"])
        except Found as found:
            return found
    raise UsageError("it has no parser")


def functions_of(file: str) -> list[str]:
    """What `minimodal run file::…` can name, by the text of the file."""
    return [name for name, _ in _runnable(_parse(file))]


def parameters_of(reference: str) -> list[str]:
    """The options of the function that is named, or of the only entrypoint."""
    from .arguments import option_name

    file, _, wanted = reference.partition("::")
    runnable = dict(_runnable(_parse(file)))
    if not wanted:
        entries = [name for name, node in runnable.items() if _has(node, {"local_entrypoint"})]
        wanted = (entries or list(runnable) or [""])[0]
    node = runnable.get(wanted)
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [option_name(each.arg) for each in named if each.arg != "self"]


def _parse(file: str) -> ast.Module:
    return ast.parse(Path(file).expanduser().read_bytes())


def _runnable(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and _has(node, {"cls"}):
            for inner in node.body:
                if _has(inner, {"method"}):
                    yield f"{node.name}.{inner.name}", inner  # type: ignore[attr-defined]  # decorated
        elif _has(node, {"function", "local_entrypoint"}):
            yield node.name, node  # type: ignore[attr-defined]  # decorated, so it has a name


def _has(node: ast.stmt, wanted: set[str]) -> bool:
    """Whether it has a decorator of such a name: `@app.function(…)`, `@method()`."""
    decorators: Sequence[ast.expr] = getattr(node, "decorator_list", ())
    for each in decorators:
        call = each.func if isinstance(each, ast.Call) else each
        name = call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "")
        if name in wanted:
            return True
    return False
