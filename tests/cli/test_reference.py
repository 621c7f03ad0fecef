"""What a reference names: reading it, finding the file, importing it as Python would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal.cli.failure import UsageError
from minimodal.cli.reference import Reference, find, is_program, load, parse, run_program


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; sys.path and sys.modules are put back."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), dict(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules["__main__"] = modules["__main__"]


def write(path: str, text: str = "") -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)


@pytest.mark.parametrize(
    ("text", "is_module", "expected"),
    [
        ("f.py", False, Reference("f.py", "", False)),
        ("d/f.py::fn", False, Reference("d/f.py", "fn", False)),
        ("f.py::app.fn", False, Reference("f.py", "app.fn", False)),
        ("C:\\d\\f.py::fn", False, Reference("C:\\d\\f.py", "fn", False)),
        ("pkg.mod::Cls.method", True, Reference("pkg.mod", "Cls.method", True)),
    ],
)
def test_references_are_read(text: str, is_module: bool, expected: Reference) -> None:
    assert parse(text, is_module=is_module) == expected


@pytest.mark.parametrize(
    ("text", "is_module", "hint"),
    [
        ("f.py:fn", False, "minimodal run f.py::fn"),
        ("pkg.mod:fn", True, "pkg.mod::fn"),
        ("", False, "script.py::function"),
        ("::fn", False, "script.py::function"),
        ("f.py::", False, "script.py::function"),
        ("f.py::a::b", False, "script.py::function"),
        ("f.py", True, "without -m"),
    ],
)
def test_wrong_references_say_what_to_write(text: str, is_module: bool, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, is_module=is_module)
    assert hint in caught.value.hint
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("helo.py", "no file helo.py", "minimodal run hello.py"),
        ("hello", "no file hello", "minimodal run hello.py"),
        ("d", "d is a directory", ""),
        ("d/nothing.py", "no file d/nothing.py", ""),
        ("pkg.mod", "no file pkg.mod", "minimodal run -m pkg.mod"),
        ("notes.txt", "must end in .py", ""),
        ("my.script.py", "has a dot in its stem", ""),
        ("json.py", "hides Python's module 'json'", ""),
        ("minimodal.py", "hides Python's module 'minimodal'", ""),
    ],
)
def test_a_file_that_cannot_be_run_is_a_usage_error(text: str, message: str, hint: str) -> None:
    for name in ("hello.py", "d/x.py", "notes.txt", "my.script.py", "json.py", "minimodal.py"):
        write(name)
    with pytest.raises(UsageError, match=message) as caught:
        find(parse(text))
    assert caught.value.hint == hint
    assert caught.value.code == 2


def test_a_script_is_the_module_of_its_stem_with_its_directory_first() -> None:
    write("d/one.py", "import two\nname, value = __name__, two.value")
    write("d/two.py", "value = 7")
    module = load(find(parse("d/one.py")))
    assert (module.name, module.value) == ("one", 7)
    assert sys.path[0] == str(Path("d").resolve())
    assert sys.modules["one"] is module


def test_a_script_whose_import_fails_is_not_left_half_imported() -> None:
    write("one.py", "1 / 0")
    with pytest.raises(ZeroDivisionError):
        load(find(parse("one.py")))
    assert "one" not in sys.modules


def test_a_stem_with_a_dash_can_be_imported() -> None:
    write("my-script.py", "x = 1")
    assert load(find(parse("my-script.py"))).x == 1


def test_relative_imports_make_it_a_module_of_its_package() -> None:
    write("pkg/__init__.py")
    write("pkg/sub/__init__.py")
    write("pkg/sub/one.py", "from ..two import value\nname = __name__")
    write("pkg/two.py", "value = 7")
    module = load(find(parse("pkg/sub/one.py")))
    assert (module.name, module.value) == ("pkg.sub.one", 7)
    assert sys.path[0] == str(Path.cwd())


def test_relative_imports_outside_a_package_are_explained() -> None:
    write("one.py", "from .two import value")
    with pytest.raises(UsageError, match="is no package") as caught:
        find(parse("one.py"))
    assert caught.value.code == 1


def test_a_relative_import_that_a_function_may_do_elsewhere_is_no_matter_of_loading() -> None:
    write("one.py", "def f():\n    from .two import value\n    return value\nname = __name__")
    assert load(find(parse("one.py"))).name == "one"
    write("two.py", "with open(__file__):\n    from .one import name")
    with pytest.raises(UsageError, match="is no package"):
        find(parse("two.py"))


def test_directories_of_a_module_need_be_no_identifiers() -> None:
    write("07_web/two-words/page.py", "from .words import word")
    write("07_web/two-words/words.py", "word = 7")
    script = find(parse("07_web.two-words.page", is_module=True))
    assert load(script).word == 7
    with pytest.raises(UsageError, match="is no module's name"):
        find(parse("07_web..page", is_module=True))


def test_a_module_is_found_from_the_current_directory() -> None:
    write("pkg/__init__.py")
    write("pkg/mod.py", "name = __name__")
    script = find(parse("pkg.mod::f", is_module=True))
    assert load(script).name == "pkg.mod"
    assert script.spell("g") == "-m pkg.mod::g"


@pytest.mark.parametrize("name", ["nowhere", "pkg.nowhere", "nowhere.mod", "..x", "pkg-x"])
def test_a_module_that_is_not_there(name: str) -> None:
    write("pkg/__init__.py")
    before = list(sys.path)
    with pytest.raises(UsageError):
        find(parse(name, is_module=True))
    assert sys.path == before


@pytest.mark.parametrize("content", [b"x = (", b"\xff\xfe", b"# coding: nothing\n", b"a\0b"])
def test_what_is_not_python_is_refused_before_it_runs(content: bytes) -> None:
    Path("one.py").write_bytes(content)
    with pytest.raises((SyntaxError, UsageError)):
        find(parse("one.py"))


MAIN = 'if __name__ == "__main__":\n    pass\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MAIN, True),
        ("if '__main__' == __name__:\n    pass\n", True),
        ("@app.function()\ndef f(): ...\n" + MAIN, True),
        ("@app.local_entrypoint()\ndef f(): ...\n" + MAIN, False),
        ("@app.function()\ndef f(): ...\n", False),
        ("if __name__ != '__main__':\n    pass\n", False),
        ("def f():\n    if __name__ == '__main__':\n        pass\n", False),
    ],
)
def test_a_program_has_a_main_block_and_no_entrypoint(text: str, expected: bool) -> None:
    write("one.py", text)
    assert is_program(find(parse("one.py"))) is expected


def test_a_program_runs_as_main_and_stays_there() -> None:
    write("one.py", "import two\nif __name__ == '__main__':\n    two.seen.append(__file__)")
    write("two.py", "seen = []")
    run_program(find(parse("one.py")))
    assert sys.modules["two"].seen == [str(Path("one.py").resolve())]
    assert sys.modules["__main__"].__file__ == str(Path("one.py").resolve())


def test_a_module_runs_as_a_program_of_its_package() -> None:
    write("pkg/__init__.py")
    write("pkg/two.py", "seen = []")
    write("pkg/one.py", "from .two import seen\nseen.append((__name__, __spec__.name))\n" + MAIN)
    run_program(find(parse("pkg.one", is_module=True)))
    assert sys.modules["pkg.two"].seen == [("__main__", "pkg.one")]


def test_a_package_that_needs_what_is_missing_says_so_itself() -> None:
    write("pkg/__init__.py", "import nothing_of_this_name")
    with pytest.raises(ModuleNotFoundError, match="nothing_of_this_name"):
        find(parse("pkg.one", is_module=True))


def test_a_package_itself_can_hold_the_app() -> None:
    write("pkg/__init__.py", "x = 1")
    assert load(find(parse("pkg", is_module=True))).x == 1
