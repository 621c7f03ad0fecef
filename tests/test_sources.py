"""What travels with a script, and that a snapshot is one consistent version of it."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from minimodal import sources
from minimodal.bytecode import forget_doubtful
from minimodal.errors import InvalidError
from minimodal.home import Home, open_home
from minimodal.sources import collect, snapshot


@pytest.fixture
def state(scratch: Path) -> Iterator[Home]:
    directory = tempfile.mkdtemp(dir=scratch)
    yield open_home(directory)
    shutil.rmtree(directory)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    return root


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_a_script_brings_the_siblings_that_it_imports(project: Path) -> None:
    write(
        project,
        {
            "main.py": "import os, one\ndef f():\n    from two import x\n    import_module('three')\n",
            "one.py": "try: import four\nexcept ImportError: pass\n",
            "two.py": "x = 1",
            "three.py": "",
            "four.py": "",
            "unrelated.py": "",
            "notes.txt": "",
        },
    )
    found = collect(project / "main.py")
    assert found.module == "main"
    assert sorted(found.files) == ["four.py", "main.py", "one.py", "three.py", "two.py"]


def test_a_local_package_travels_whole_without_rubbish(project: Path) -> None:
    write(
        project,
        {
            "main.py": "import pkg.sub",
            "pkg/__init__.py": "",
            "pkg/sub/__init__.py": "from . import deep\nimport other",
            "pkg/sub/deep.py": "",
            "pkg/data/x.json": "{}",
            "pkg/.hidden": "",
            "pkg/__pycache__/a.pyc": "",
            "pkg/node_modules/x.js": "",
            "other.py": "",
            ".venv/lib/python3.11/site-packages/pkg2.py": "",
        },
    )
    assert sorted(collect(project / "main.py").files) == [
        "main.py",
        "other.py",
        "pkg/__init__.py",
        "pkg/data/x.json",
        "pkg/sub/__init__.py",
        "pkg/sub/deep.py",
    ]


def test_a_module_of_a_package_brings_its_top_level_package(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        project,
        {
            "mm_top/__init__.py": "",
            "mm_top/sub/__init__.py": "",
            "mm_top/sub/app.py": "from ..util import x\nimport mm_sibling",
            "mm_top/util.py": "x = 1",
            "mm_sibling.py": "",
        },
    )
    monkeypatch.syspath_prepend(project)
    found = collect(importlib.import_module("mm_top.sub.app"))
    assert (found.module, found.root) == ("mm_top.sub.app", project)
    assert "mm_sibling.py" in found.files
    assert "mm_top/util.py" in found.files
    whole = collect(importlib.import_module("mm_top"))
    assert (whole.module, whole.root) == ("mm_top", project)
    as_script = collect(
        project / "mm_top/sub/app.py"
    )  # as `python mm_top/sub/app.py` would have it
    assert (as_script.module, as_script.root) == ("app", project / "mm_top/sub")


def test_main_is_named_after_its_file(project: Path) -> None:
    write(project, {"run_me.py": "", "mm_pkg/__init__.py": "", "mm_pkg/__main__.py": ""})
    code = (
        "import sys; from minimodal.sources import collect; f = collect(sys.modules['__main__']);"
        "print(f.module, *f.files)"
    )
    for name in ("run_me.py", "mm_pkg/__main__.py"):
        (project / name).write_text(code)

    def run(*args: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, *args], cwd=project, capture_output=True, text=True, check=True
        )
        return done.stdout.split()

    assert run("run_me.py") == ["run_me", "run_me.py"]
    assert run("-m", "mm_pkg") == [
        "mm_pkg.__main__",
        "mm_pkg/__init__.py",
        "mm_pkg/__main__.py",
    ]


def test_modules_from_elsewhere_on_the_path_travel_and_installed_ones_do_not(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lib = tmp_path / "lib"
    write(lib, {"mm_far.py": "", "mm_farpkg/__init__.py": "import json, pytest, minimodal"})
    write(project, {"main.py": "import mm_far, mm_farpkg, pytest, json, anyio, no_such\n"})
    monkeypatch.syspath_prepend(lib)
    found = collect(project / "main.py")
    assert sorted(found.files) == ["main.py", "mm_far.py", "mm_farpkg/__init__.py"]


def test_what_was_loaded_by_a_computed_name_travels(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        project,
        {
            "mm_dyn.py": "import importlib\nm = importlib.import_module('mm_' + 'plugin')\n",
            "mm_plugin.py": "",
        },
    )
    monkeypatch.syspath_prepend(project)
    found = collect(importlib.import_module("mm_dyn"))
    assert sorted(found.files) == ["mm_dyn.py", "mm_plugin.py"]


def test_namespace_directories_bring_their_python_files_only(project: Path) -> None:
    write(
        project,
        {"main.py": "from parts import a", "parts/a.py": "", "parts/b.py": "", "parts/big.bin": ""},
    )
    assert sorted(collect(project / "main.py").files) == ["main.py", "parts/a.py", "parts/b.py"]


def test_linked_modules_travel_as_files(project: Path, tmp_path: Path, state: Home) -> None:
    write(tmp_path / "shared", {"util.py": "x = 7"})
    write(project, {"main.py": "import util, pkg", "pkg/__init__.py": ""})
    (project / "util.py").symlink_to(tmp_path / "shared/util.py")
    (project / "pkg/inner.py").symlink_to(tmp_path / "shared/util.py")
    (project / "pkg/gone.py").symlink_to(tmp_path / "nowhere.py")
    kept = state.sources / snapshot(state, collect(project / "main.py"))
    assert (kept / "util.py").read_text() == "x = 7"
    assert (kept / "pkg/inner.py").read_text() == "x = 7"
    assert not (kept / "util.py").is_symlink()


def test_refusals(project: Path) -> None:
    write(project, {"a.b.py": ""})
    with pytest.raises(InvalidError, match=r"a_b\.py"):
        collect(project / "a.b.py")
    with pytest.raises(InvalidError, match="does not exist"):
        collect(project / "nowhere.py")
    with pytest.raises(InvalidError, match="has no file"):
        collect(sys)


def test_a_file_with_a_syntax_error_still_travels(project: Path) -> None:
    write(project, {"main.py": "import one\ndef f(:\n", "one.py": "\xff"})
    assert sorted(collect(project / "main.py").files) == ["main.py", "one.py"]


def test_a_snapshot_is_a_copy_named_by_its_bytes(project: Path, state: Home) -> None:
    write(project, {"main.py": "import run", "run.py": "1"})
    (project / "run.py").chmod(0o700)
    first = snapshot(state, collect(project / "main.py"))
    assert snapshot(state, collect(project / "main.py")) == first
    assert (state.sources / first / "run.py").stat().st_mode & 0o777 == 0o755
    write(project, {"run.py": "2"})
    second = snapshot(state, collect(project / "main.py"))
    assert second != first
    assert (state.sources / first / "run.py").read_text() == "1"
    write(project, {"run.py": "1"})
    assert snapshot(state, collect(project / "main.py")) == first
    assert not list(state.sources.glob(".tmp-*"))


@pytest.fixture
def loaded(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that this process has imported, long after it was written."""
    write(project, {"loaded_here.py": "import left_alone\nx = 1", "left_alone.py": ""})
    os.utime(project / "loaded_here.py", (1e9, 1e9))
    monkeypatch.syspath_prepend(project)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setitem(sys.modules, "left_alone", ModuleType("left_alone"))
    monkeypatch.delitem(sys.modules, "loaded_here", raising=False)
    importlib.import_module("loaded_here")
    yield project / "loaded_here.py"
    del sys.modules["loaded_here"]


def seen_by_python(directory: Path) -> tuple[str, str]:
    """What `x` is, and which of the two modules Python took from bytecode."""
    command = [sys.executable, "-B", "-v", "-c", "import loaded_here; print(loaded_here.x)"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    named = [line for line in done.stderr.splitlines() if "code object from '" in line]
    return done.stdout.strip(), " ".join(
        n for n in ("loaded_here", "left_alone") if any(f"{n}.cpython" in line for line in named)
    )


def test_a_snapshot_has_the_bytecode_of_what_is_loaded(loaded: Path, state: Home) -> None:
    copy = state.sources / snapshot(state, collect(loaded))
    assert seen_by_python(copy) == ("1", "loaded_here")


def test_no_room_for_bytecode_is_no_error(
    loaded: Path, state: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    copy = state.sources / snapshot(state, collect(loaded))
    assert seen_by_python(copy) == ("1", "")


def test_no_bytecode_is_taken_that_may_be_of_other_text(loaded: Path, state: Home) -> None:
    """Python compares whole seconds and sizes: of a change within them it knows nothing."""
    loaded.write_text("import left_alone\nx = 2")
    cached = Path(importlib.util.cache_from_source(str(loaded)))
    os.utime(loaded, (1e9, 1e9))
    assert seen_by_python(loaded.parent)[0] == "1"  # this is what it is about
    copy = state.sources / snapshot(state, collect(loaded))
    assert seen_by_python(copy)[0] == "1"  # written long after that second: taken as Python does
    os.utime(cached, (1e9, 1e9))
    loaded.write_text("import left_alone\nx = 3")
    os.utime(loaded, (1e9, 1e9))
    copy = state.sources / snapshot(state, collect(loaded))
    assert seen_by_python(copy) == ("3", "loaded_here")
    forget_doubtful([loaded, loaded.with_name("nothing.py")])
    assert seen_by_python(loaded.parent)[0] == "3"


def test_equal_projects_at_two_places_are_one_snapshot(tmp_path: Path, state: Home) -> None:
    for place in ("a", "b"):
        write(tmp_path / place, {"main.py": "import x", "x.py": ""})
    one = snapshot(state, collect(tmp_path / "a/main.py"))
    assert snapshot(state, collect(tmp_path / "b/main.py")) == one


def test_an_unchanged_project_is_found_without_reading_it(
    project: Path, state: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project, {"main.py": "x = 1"})
    os.utime(project / "main.py", (1, 1))
    found = collect(project / "main.py")
    digest = snapshot(state, found)
    while not (state.sources / ".index").exists():  # too young a file is not trusted to its times
        assert snapshot(state, found) == digest

    def fail(*args: object) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(sources, "copy_settled", fail)
    assert snapshot(state, found) == digest


def test_f66_a_file_rewritten_all_the_time_gives_one_version(project: Path, state: Home) -> None:
    versions = {str(n) * 20_000 for n in range(10)}
    main, stop = project / "main.py", threading.Event()
    main.write_text("0" * 20_000)

    def rewrite() -> None:
        while not stop.is_set():
            for text in sorted(versions):
                part = project / "part"
                part.write_text(text)
                os.replace(part, main)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(20):
            digest = snapshot(state, collect(main))
            assert (state.sources / digest / "main.py").read_text() in versions
    finally:
        stop.set()
        writer.join()
    assert len(list(state.sources.glob("[0-9a-f]*"))) <= len(versions)


def test_two_snapshots_at_once_agree(project: Path, state: Home) -> None:
    write(project, {f"m{n}.py": f"import m{n + 1}\n" + "x" * 5000 for n in range(40)})
    found, digests = collect(project / "m0.py"), []
    threads = [
        threading.Thread(target=lambda: digests.append(snapshot(state, found))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 8
    assert len(set(digests)) == 1
    assert len(list((state.sources / digests[0]).iterdir())) == 40


def test_too_much_is_refused_with_the_largest_files(
    project: Path, state: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 2_000_000)
    write(project, {"main.py": "import pkg", "pkg/__init__.py": "", "pkg/big.bin": "x" * 3_000_000})
    with pytest.raises(InvalidError, match=r"pkg/big\.bin \(3 MB\)"):
        snapshot(state, collect(project / "main.py"))
    assert not state.sources.exists()


def test_what_a_killed_snapshot_left_is_swept(project: Path, state: Home) -> None:
    state.sources.mkdir(parents=True)
    child = subprocess.Popen(["true"])
    child.wait()
    left, alive = state.sources / f".tmp-{child.pid}-x", state.sources / f".tmp-{os.getpid()}-y"
    left.mkdir()
    alive.mkdir()
    write(project, {"main.py": ""})
    snapshot(state, collect(project / "main.py"))
    assert not left.exists()
    assert alive.exists()
