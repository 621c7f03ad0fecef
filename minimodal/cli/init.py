"""`minimodal init`: a starter script that runs as it is."""

from __future__ import annotations

import sys
from pathlib import Path

from .failure import UsageError
from .parser import Parser

STARTER = '''\
"""A starter: functions that run in containers, and an entrypoint that calls them.

minimodal run {file}                # runs main() here, the functions in containers
minimodal run {file} --count 100    # main's parameters are options
minimodal run {file}::greet --name you
"""

import minimodal

# What the containers have: add .uv_pip_install("package"), .apt_install("tool"), …
image = minimodal.Image.debian_slim()
app = minimodal.App("{name}", image=image)


@app.function()
def greet(name: str) -> str:
    print(f"in a container: {{name}}")
    return f"Hello {{name}}!"


@app.function(cpu=0.5, memory=256, timeout=60, retries=1)
def square(number: int) -> int:
    return number * number


@app.local_entrypoint()
def main(name: str = "world", count: int = 20) -> None:
    print(greet.remote(name))  # one call, and its result
    print("in parallel:", sum(square.map(range(count))))  # many, in as many containers as fit
    call = square.spawn(12)  # one that goes on while this does something else
    print("spawned:", call.get())
'''


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal init",
        "Write a starter script that runs as it is.",
        "minimodal init my_app.py && minimodal run my_app.py",
    )
    parser.add_argument("file", nargs="?", default="app.py", help="its name (app.py)")
    parser.add_argument("--force", action="store_true", help="in place of a file that is there")
    options = parser.parse(arguments)
    path = Path(options.file)
    if path.suffix != ".py":
        raise UsageError(f"{path} is no name of a script.", hint=f"minimodal init {path}.py")
    if not path.stem.replace("-", "_").isidentifier() or path.stem in sys.stdlib_module_names:
        raise UsageError(
            f"a script called {path.name} cannot be imported by its containers.",
            hint="minimodal init my_app.py",
        )
    try:
        with path.open("w" if options.force else "x", encoding="utf-8") as file:
            file.write(STARTER.format(file=path, name=path.stem.replace("_", "-")))
    except FileExistsError:
        hint = f"another name, or minimodal init --force {path}"
        raise UsageError(f"there is a file {path} already.", hint=hint, code=1) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", code=1) from None
    print(f"wrote {path}. Now:  minimodal run {path}", file=sys.stderr)
    return 0
