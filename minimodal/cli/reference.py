"""What `minimodal run REF` names, and loading it: `file.py::name`, or `-m pkg.mod::name`.

A script is imported as the module named by its stem, with its directory first on sys.path, as
`python script.py` has it; the container imports it under the same name. A file of a package that
uses relative imports is imported as that package's module. Which of the things in it is meant is
`choose`'s part, in choice.py.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .failure import UsageError, nearest


class Reference(NamedTuple):
    source: str  # a path, or a dotted module name
    target: str  # what stands behind "::", or ""
    is_module: bool

    def __str__(self) -> str:
        option = "-m " if self.is_module else ""
        return option + self.source + (f"::{self.target}" if self.target else "")


class Script(NamedTuple):
    """A reference whose file was found and read, but not executed."""

    reference: Reference
    path: Path
    module: str  # the name to import it under
    root: Path  # the directory to import it from
    tree: ast.Module

    def spell(self, target: str) -> str:
        """How to write `target` of this script on the command line."""
        option = "-m " if self.reference.is_module else ""
        return f"{option}{self.reference.source}::{target}"


def parse(text: str, *, is_module: bool = False) -> Reference:
    """Read a reference. Raises UsageError."""
    source, *targets = text.split("::")
    if not source or len(targets) > 1 or "" in targets:
        raise UsageError(f"{text!r} is no reference.", hint="script.py::function")
    before, colon, after = source.rpartition(":")
    if colon and not after.startswith(("\\", "/")):  # C:\script.py is a path
        right = f"{before}::{'.'.join([after, *targets])}"
        raise UsageError(f"{text!r} has a single colon.", hint=f"minimodal run {right}")
    if is_module and source.endswith(".py"):
        raise UsageError(
            f"-m takes a module's name, not a file: {source}.", hint=f"without -m: {text}"
        )
    return Reference(source, targets[0] if targets else "", is_module)


def find(reference: Reference) -> Script:
    """Find and read the script. Raises UsageError; SyntaxError where it is not Python."""
    if reference.is_module:
        return _find_module(reference)
    path = Path(reference.source)
    if not path.is_file():
        raise _no_such_file(reference)
    path = path.resolve()
    if path.suffix != ".py":
        raise UsageError(f"{reference.source} is no Python file: its name must end in .py.")
    tree = _read(path)
    in_package = (path.parent / "__init__.py").is_file()
    if _has_relative_imports(ast.walk(tree) if in_package else _run_on_import(tree)):
        module, root = _in_package(path)
    else:
        _check_stem(path)
        module, root = path.stem, path.parent
    return Script(reference, path, module, root, tree)


def is_program(script: Script) -> bool:
    """Whether it is meant to be run from top to bottom: a __main__ block and no entrypoint."""
    return any(_is_main_block(node) for node in script.tree.body) and not any(
        isinstance(node, ast.Attribute) and node.attr == "local_entrypoint"
        for node in ast.walk(script.tree)
    )


def load(script: Script) -> ModuleType:
    """Import the script under its name. What its code raises passes through."""
    sys.path.insert(0, str(script.root))
    if script.root != script.path.parent or script.reference.is_module:
        return importlib.import_module(script.module)
    spec = importlib.util.spec_from_file_location(script.module, script.path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.module] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[script.module]
        raise
    return module


def run_program(script: Script) -> None:
    """Execute it as `__main__`, as `python script.py` or `python -m module` would."""
    sys.path.insert(0, str(script.root if script.reference.is_module else script.path.parent))
    module = ModuleType("__main__")
    module.__file__ = str(script.path)
    module.__dict__["__builtins__"] = __builtins__
    if script.root != script.path.parent or script.reference.is_module:
        package = script.module.rpartition(".")[0]
        if package:
            importlib.import_module(package)
        module.__package__ = package
        module.__spec__ = importlib.util.spec_from_file_location(script.module, script.path)
    # It stays there when it has ended: functions that run at exit still find their globals.
    sys.modules["__main__"] = module
    exec(compile(script.path.read_bytes(), str(script.path), "exec"), module.__dict__)


def _find_module(reference: Reference) -> Script:
    name, root = reference.source, Path.cwd()
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", name):  # a directory's name need be no identifier
        raise UsageError(f"{name!r} is no module's name.", hint="minimodal run -m package.module")
    sys.path.insert(0, str(root))
    try:
        spec = importlib.util.find_spec(name)  # imports the packages above it
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a package above it needs something else
        spec = None
    finally:
        sys.path.remove(str(root))
    if spec is None:
        near = f"without -m: {name}" if os.path.exists(name) else ""
        raise UsageError(f"there is no module {name!r} to import from {root}.", hint=near)
    if not spec.origin or not spec.origin.endswith(".py"):
        raise UsageError(f"the module {name!r} has no source file that can be run.")
    path = Path(spec.origin)
    return Script(reference, path, name, root, _read(path))


def _no_such_file(reference: Reference) -> UsageError:
    path = Path(reference.source)
    if path.is_dir():
        return UsageError(f"{path} is a directory.", choices=_scripts(path)[:20])
    if path.with_suffix(".py").is_file() and not path.suffix:
        return UsageError(f"there is no file {path}.", hint=f"minimodal run {path}.py")
    if path.name == str(path) and "." in path.name and path.suffix != ".py":
        return UsageError(f"there is no file {path}.", hint=f"minimodal run -m {reference}")
    near = nearest(path.name, (Path(each).name for each in _scripts(path.parent)))
    hint = f"minimodal run {path.parent / near}" if near else ""
    return UsageError(f"there is no file {path}.", hint=hint)


def _scripts(directory: Path) -> list[str]:
    try:
        return sorted(str(each) for each in directory.glob("*.py") if each.is_file())
    except OSError:
        return []


def _read(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except SyntaxError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as Python: {error}.", code=1) from error


def _check_stem(path: Path) -> None:
    if "." in path.stem:
        raise UsageError(f"{path.name} has a dot in its stem, so it cannot be imported: rename it.")
    if path.stem in sys.stdlib_module_names or path.stem == "minimodal":
        raise UsageError(f"{path.name} hides Python's module {path.stem!r}: rename it.")
    loaded = sys.modules.get(path.stem)
    if loaded is not None:
        raise UsageError(
            f"{path.name} hides the module {path.stem!r} ({getattr(loaded, '__file__', '?')}), "
            "which is in use: rename it."
        )


def _in_package(path: Path) -> tuple[str, Path]:
    """The dotted name of a package's file, and the directory that the package lies in."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if len(parts) == 1:
        raise UsageError(
            f"{path.name} uses relative imports, but {path.parent} is no package.",
            hint="add an __init__.py, or import with `import name` instead of `from . import name`",
            code=1,
        )
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts), folder


def _has_relative_imports(nodes: Iterable[ast.AST]) -> bool:
    return any(isinstance(node, ast.ImportFrom) and node.level for node in nodes)


def _run_on_import(node: ast.AST) -> Iterator[ast.AST]:
    """What is below a node, without the bodies of functions: those may run elsewhere, or never."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _run_on_import(child)


def _is_main_block(node: ast.stmt) -> bool:
    if not (isinstance(node, ast.If) and isinstance(node.test, ast.Compare)):
        return False
    sides = {ast.unparse(side) for side in (node.test.left, *node.test.comparators)}
    return sides == {"__name__", "'__main__'"} and isinstance(node.test.ops[0], ast.Eq)
