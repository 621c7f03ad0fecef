"""Which local modules a file imports: by reading its import statements and what it has loaded.

Local is what neither the standard library nor a site-packages directory holds. Statements are read
by a regular expression, not by `ast`: 30 times as fast, and a false hit in a docstring names no
local module. What the file loaded by a computed name is found among its module's values.
"""

from __future__ import annotations

import re
import sys
import sysconfig
import time
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from .localfiles import Stamp, settled, stamp

_STATEMENT = re.compile(
    r"(?:^|[;:])[ \t]*(?:import[ \t]+([\w., \t]+)|from[ \t]+(\w[\w.]*)[ \t]+import\b)"
    r"|(?:import_module|__import__)\(\s*[\"'](\w[\w.]*)[\"']",
    re.MULTILINE,
)


def local_imports(
    file: Path, module: str, root: Path, seen: set[str]
) -> Iterator[tuple[str, Path]]:
    """(name, file or package directory) of each top-level local module that `file` imports.

    Names in `seen` are passed over, and each name looked at is added to it.
    """
    try:
        written = _names_in(file)
    except OSError:
        return
    for name in [*written, *_loaded(module, file)]:
        top = name.partition(".")[0]
        if top in seen or not top:
            continue
        seen.add(top)
        if (place := _place(top, root)) is not None:
            yield top, place


_known: dict[str, tuple[Stamp, tuple[str, ...]]] = {}  # by path; filled by _names_in only


def _names_in(file: Path) -> tuple[str, ...]:
    """The modules that the file's text names; known from before if it has not changed."""
    info, key, now = file.stat(), str(file), time.time_ns()
    known = _known.get(key)
    if known and known[0] == stamp(info):
        return known[1]
    names = tuple(_written(file.read_text("utf-8", errors="replace")))
    if settled(info, now):
        _known[key] = (stamp(info), names)
    return names


def _written(text: str) -> Iterator[str]:
    for match in _STATEMENT.finditer(text):
        if match[1]:
            yield from (part.split()[0] for part in match[1].split(",") if part.strip())
        else:
            yield match[2] or match[3]


def _loaded(name: str, file: Path) -> Iterator[str]:
    """Names of the modules that a loaded module's values are, or come from."""
    module = sys.modules.get(name)
    if module is None or not _is_file(module, file):
        module = sys.modules.get("__main__")
        if module is None or not _is_file(module, file):
            return
    for value in list(vars(module).values()):
        if isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(origin := getattr(value, "__module__", None), str):
            yield origin


def imported_by_main(root: Path, seen: set[str]) -> Iterator[tuple[str, Path]]:
    """(name, place) of the local modules that the values of `__main__` are, or come from.

    Names looked at are added to `seen`.
    """
    for value in list(vars(sys.modules["__main__"]).values()):
        origin = getattr(value, "__module__", None)
        name = value.__name__ if isinstance(value, ModuleType) else origin
        top = name.partition(".")[0] if isinstance(name, str) else ""
        if top and top not in seen:
            seen.add(top)
            if (place := _place(top, root)) is not None:
                yield top, place


def _is_file(module: ModuleType, file: Path) -> bool:
    path = getattr(module, "__file__", None)
    return bool(path) and Path(str(path)).name == file.name and Path(str(path)).resolve() == file


def _place(top: str, root: Path) -> Path | None:
    """Where a top-level module's own files are, or None if it is not local."""
    if top in ("minimodal", "__main__") or top in sys.builtin_module_names:
        return None  # minimodal itself is mounted by every backend
    if (root / top / "__init__.py").is_file():
        return root / top
    if (root / f"{top}.py").is_file():
        return root / f"{top}.py"
    if top in sys.stdlib_module_names:
        return None
    found = _origin(top)
    if found is None and (root / top).is_dir() and any((root / top).glob("*.py")):
        return root / top
    return found if found is not None and not _installed(found) else None


def _origin(top: str) -> Path | None:
    """The file, or the directory with an __init__.py, that `import top` would take."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError, AttributeError):  # loaded without a spec
        spec = None
    file = spec.origin if spec else getattr(sys.modules.get(top), "__file__", None)
    if not file or not Path(file).is_file():
        return None
    path = Path(file)
    if path.name == "__init__.py":
        return path.parent
    return path if path.suffix == ".py" else None


def _installed(path: Path) -> bool:
    if {"site-packages", "dist-packages", "__pycache__"} & set(path.parts):
        return True
    return any(path.is_relative_to(prefix) for prefix in _prefixes())


@cache
def _prefixes() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple(sysconfig.get_paths()[name] for name in names)
