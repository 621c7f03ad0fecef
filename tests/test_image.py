"""Image is data: what each method writes down, refuses, reads, and what its digest depends on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from minimodal import layers
from minimodal.app import App
from minimodal.errors import InvalidError
from minimodal.home import Home, open_home
from minimodal.ignore import FilePatternMatcher
from minimodal.image import Image

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def state(scratch: Path) -> Iterator[Home]:
    directory = tempfile.mkdtemp(dir=scratch)
    yield open_home(directory)
    shutil.rmtree(directory)


class Token:
    """A Secret as far as Image can tell."""

    def _secret_id(self) -> str:
        return "st-1"


def last(image: Image) -> layers.Layer:
    return image.spec().layers[-1]


base = Image.debian_slim("3.11")


def test_starts() -> None:
    assert last(base) == layers.Base("python:3.11-slim", python="3.11")
    assert last(Image.debian_slim()) == layers.Base(f"python:{PYTHON}-slim", python=PYTHON)
    assert last(Image.from_registry("ubuntu:24.04", add_python="3.12")) == layers.Base(
        "ubuntu:24.04", None, "3.12"
    )
    assert Image.from_registry("python:3.11-slim").digest() == base.digest()
    logged_in = Image.from_registry("ghcr.io/me/x", secret=Token())
    assert last(logged_in) == layers.Base("ghcr.io/me/x", secret="st-1")
    assert logged_in.digest() == Image.from_registry("ghcr.io/me/x").digest()


@pytest.mark.parametrize("bad", [3.11, "3", "3.9", "2.7", "latest", ""])
def test_python_versions_that_cannot_be(bad: Any) -> None:
    with pytest.raises(InvalidError, match="python_version"):
        Image.debian_slim(bad)


def test_packages_flatten_and_empty_lists_change_nothing() -> None:
    image = base.pip_install("six", ["idna", ["a[b]>=1"]], index_url="https://x", pre=True)
    layer = last(image)
    assert isinstance(layer, layers.PipInstall)
    assert layer.packages == ("six", "idna", "a[b]>=1")
    assert (layer.index_url, layer.pre) == ("https://x", True)
    for same in (base.pip_install(), base.pip_install([]), base.apt_install([]), base.env({})):
        assert same is base
    assert base.run_commands() is base
    assert base.uv_pip_install([]) is base
    assert base.dockerfile_commands() is base
    assert base.add_local_python_source() is base


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Image(), "debian_slim"),
        (lambda: base.pip_install("six", "--pre"), "extra_options"),
        (lambda: base.pip_install("-r x.txt"), "extra_options"),
        (lambda: base.pip_install(3), "strings"),
        (lambda: base.pip_install(""), "empty"),
        (lambda: base.apt_install("-y"), "run_commands"),
        (lambda: base.env({"A": 1}), "'1'"),
        (lambda: base.env({"A=B": "1"}), "A=B"),
        (lambda: base.cmd("python -m x"), "list of strings"),
        (lambda: base.entrypoint("x"), "list of strings"),
        (lambda: base.shell("/bin/bash"), "list of strings"),
        (lambda: base.add_local_file("x", "rel/x"), "absolute"),
        (lambda: base.add_local_dir("x", "./x"), "absolute"),
        (lambda: base.add_local_dir("x", "/a/../b"), r"\.\."),
        (lambda: base.add_local_dir("x", "/x", ignore="*.py"), "ignore="),
        (lambda: base.add_local_python_source("./x.py"), "module names"),
        (lambda: base.run_commands("x", secrets=["token"]), "Secret"),
        (lambda: base.run_function("x"), "plain Python function"),
        (lambda: base.run_function(test_starts, timeout=0), "timeout"),
        (lambda: base.uv_pip_install("six", uv_version="0.5"), "uv_version"),
        (lambda: Image.from_registry(""), "tag"),
    ],
)
def test_refusals_say_what_to_write(call: Any, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        call()


def test_add_local_without_copy_must_be_last(tmp_path: Path) -> None:
    image = base.add_local_file(tmp_path / "x", "/x").add_local_dir(tmp_path, "/d")
    with pytest.raises(InvalidError, match="copy=True"):
        image.pip_install("six")
    with pytest.raises(InvalidError, match="copy=True"):
        image.env(A="1")


def test_nothing_is_read_before_it_is_resolved(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    images = [
        base.add_local_file(gone, "/x"),
        base.add_local_dir(gone, "/x", copy=True),
        base.pip_install_from_requirements(gone),
        base.pip_install_from_pyproject(gone),
        base.uv_sync(gone),
        Image.from_dockerfile(gone),
        base.add_local_python_source("no_such_module_anywhere"),
    ]
    for image in images:
        with pytest.raises(
            (FileNotFoundError, InvalidError), match=r"gone|no_such_module_anywhere"
        ):
            image.spec()


def test_settings() -> None:
    image = (
        base.env({"A": "1"}, B="2")
        .workdir("/w")
        .entrypoint(["e"])
        .cmd(["c"])
        .shell(["/bin/bash", "-c"])
    )
    assert image.spec().layers[1:] == (
        layers.SetEnv((("A", "1"), ("B", "2"))),
        layers.Workdir("/w"),
        layers.Entrypoint(("e",)),
        layers.Cmd(("c",)),
        layers.Shell(("/bin/bash", "-c")),
    )


def test_a_digest_is_of_content_not_of_path_or_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("hello")
    two.write_text("hello")
    os.utime(two, (1, 1))

    def digest(path: Path) -> str:
        return base.add_local_file(path, "/x", copy=True).digest()

    before = digest(one)
    assert before == digest(two)
    one.write_text("hellO")
    assert digest(one) != before
    two.chmod(0o755)
    assert digest(two) != before  # the x bit is content
    assert base.add_local_file(two, "/x").digest() == base.digest()  # mounted, not built


def test_a_rewrite_with_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "x"
    image = base.add_local_file(file, "/x", copy=True)
    seen = set()
    for text in ("a", "b", "c", "d"):
        file.write_text(text)
        os.utime(file, (1, 1))
        seen.add(image.digest())
    assert len(seen) == 4


def test_prefixes_share_layers() -> None:
    one = base.pip_install("six").run_commands("a").spec().digests()
    two = base.pip_install("six").run_commands("b").spec().digests()
    assert one[:2] == two[:2]
    assert one[2] != two[2]


def test_directories(tmp_path: Path, state: Home) -> None:
    root = tmp_path / "d"
    (root / "sub").mkdir(parents=True)
    for name in ("a.py", "b.txt", "sub/c.py", "sub/new\nline.py"):
        (root / name).write_text(name)
    (root / "out").symlink_to("/etc")
    copied = last(base.add_local_dir(root, "/x/", copy=True, ignore=["*.txt"]))
    assert isinstance(copied, layers.CopyFiles)
    assert [f.target for f in copied.files] == [
        "/x/a.py",
        "/x/out",
        "/x/sub/c.py",
        "/x/sub/new\nline.py",
    ]
    assert stat.S_ISLNK(copied.files[1].mode)  # a link stays a link: /etc is not read
    by_function = base.add_local_dir(root, "/x", copy=True, ignore=lambda p: p.suffix != ".py")
    assert last(by_function) == layers.CopyFiles((copied.files[0], *copied.files[2:]))
    (mount,) = base.add_local_dir(root, "/x", ignore=["sub"]).spec(state).mounts
    assert stat.S_ISDIR(mount.mode)
    kept = state.sources / mount.digest
    assert sorted(p.name for p in kept.iterdir()) == ["a.py", "b.txt", "out"]
    assert os.readlink(kept / "out") == "/etc"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidError, match="a pipe"):
        base.add_local_dir(tmp_path, "/x", copy=True).spec()
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        with pytest.raises(InvalidError, match="a socket"):
            base.add_local_dir(tmp_path, "/x", copy=True).spec()
        base.add_local_dir(tmp_path, "/x", copy=True, ignore=["s"]).spec()


def test_mounted_files_are_kept_by_content(tmp_path: Path, state: Home) -> None:
    file = tmp_path / "x.txt"
    file.write_text("1")
    image = base.add_local_file(file, "/data/")
    (mount,) = image.spec(state).mounts
    assert mount.target == "/data/x.txt"
    file.write_text("2")
    assert (state.blobs / mount.digest).read_text() == "1"
    (after,) = image.spec(state).mounts
    assert (state.blobs / after.digest).read_text() == "2"


def test_python_source(tmp_path: Path, state: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mm_pkg").mkdir()
    for name in ("__init__.py", "a.py", "data.json"):
        (tmp_path / "mm_pkg" / name).write_text("")
    (tmp_path / "mm_one.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    layer = last(base.add_local_python_source("mm_pkg", "mm_one", copy=True))
    assert isinstance(layer, layers.CopyFiles)
    assert [f.target for f in layer.files] == [
        "/root/mm_pkg/__init__.py",
        "/root/mm_pkg/a.py",
        "/root/mm_one.py",
    ]
    one, two = base.add_local_python_source("mm_pkg", "mm_one", ignore=[]).spec(state).mounts
    assert (one.target, two.target) == ("/root/mm_pkg", "/root/mm_one.py")
    assert (state.sources / one.digest / "data.json").exists()
    assert "mm_pkg" not in sys.modules


def test_requirements_and_the_files_that_they_name(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    main, nested, limits = tmp_path / "r/main.txt", tmp_path / "nested.txt", tmp_path / "r/c.txt"
    main.write_text("six\n-r ../nested.txt\n-c c.txt\n")
    nested.write_text("idna\n")
    limits.write_text("idna<4\n")
    image = base.pip_install_from_requirements(main)
    layer = last(image)
    assert isinstance(layer, layers.PipInstall)
    assert [f.target for f in layer.requirements] == ["/r/main.txt"]
    assert [f.target for f in layer.included] == ["/nested.txt", "/r/c.txt"]
    before = image.digest()
    limits.write_text("idna<3\n")
    assert image.digest() != before
    assert last(base.uv_pip_install(requirements=[str(main)])) == last(image)
    limits.unlink()
    with pytest.raises(FileNotFoundError, match=r"c\.txt"):
        image.digest()


def test_pyproject(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[project]\nname="x"\ndependencies=["six"]\n[project.optional-dependencies]\nweb=["idna"]\n'
    )
    layer = last(base.pip_install_from_pyproject(file, ["web"]))
    assert layer == layers.PipInstall(("six", "idna"))
    with pytest.raises(InvalidError, match="it has: web"):
        base.pip_install_from_pyproject(file, ["gui"]).spec()
    file.write_text("[tool.poetry]\n")
    with pytest.raises(InvalidError, match="PEP 621"):
        base.pip_install_from_pyproject(file).spec()
    file.write_text("[project\n")
    with pytest.raises(InvalidError, match="not valid TOML"):
        base.pip_install_from_pyproject(file).spec()


def test_uv_sync(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"pyproject\.toml does not exist"):
        base.uv_sync(tmp_path).spec()
    (tmp_path / "pyproject.toml").write_text('[project]\nname="x"\n')
    layer = last(base.uv_sync(tmp_path, groups=["g"], extras=["e"]))
    assert isinstance(layer, layers.UvSync)
    assert (layer.groups, layer.extras, layer.frozen) == (("g",), ("e",), False)
    (tmp_path / "uv.lock").write_text("version = 1\n")
    layer = last(base.uv_sync(tmp_path))
    assert isinstance(layer, layers.UvSync)
    assert layer.frozen
    assert [f.target for f in layer.project] == ["/pyproject.toml", "/uv.lock"]
    (tmp_path / "pyproject.toml").write_text("[tool.uv.workspace]\nmembers=[]\n")
    with pytest.raises(InvalidError, match="workspace"):
        base.uv_sync(tmp_path).spec()


def test_dockerfile_context_holds_only_what_is_copied(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "secret.txt", "big.bin"):
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("secret.txt\n")
    file = tmp_path / "Dockerfile"

    def context(text: str) -> list[str]:
        file.write_text(text)
        layer = last(Image.from_dockerfile(file, context_dir=tmp_path, build_args={"V": "1"}))
        assert isinstance(layer, layers.Dockerfile)
        assert layer.build_args == (("V", "1"),)
        return [f.target for f in layer.context]

    assert context("FROM x\nRUN echo") == []
    assert context("FROM x\nCOPY a.txt \\\n  b.txt /x/\n") == ["/a.txt", "/b.txt"]
    assert context('FROM x\nCOPY --chown=1 ["b.txt", "/x"]\n') == ["/b.txt"]
    assert context("FROM x\nCOPY --from=y a.txt /\nADD https://h/f /f\n") == []
    assert context("FROM x\nCOPY *.txt /\n") == ["/a.txt", "/b.txt"]
    assert context("FROM x\nCOPY . /x\n") == [
        "/.dockerignore",
        "/Dockerfile",
        "/a.txt",
        "/b.txt",
        "/big.bin",
    ]
    file.write_text(" ")
    with pytest.raises(InvalidError, match="empty"):
        Image.from_dockerfile(file).spec()
    commands = base.dockerfile_commands("COPY a.txt /", ["RUN x"], context_dir=tmp_path)
    layer = last(commands)
    assert isinstance(layer, layers.Dockerfile)
    assert layer.text == "COPY a.txt /\nRUN x"
    own = last(base.dockerfile_commands("COPY . /", context_dir=tmp_path, ignore=["*.bin", ".*"]))
    assert isinstance(own, layers.Dockerfile)
    assert "/secret.txt" in [f.target for f in own.context]


FACTOR = 2


def helper() -> int:
    return FACTOR


def at_build(x: int = 0) -> int:
    return helper() + x


def test_run_function_key(state: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    image = base.run_function(at_build, args=(1,))
    before = image.digest()
    assert base.run_function(at_build, args=(1,)).digest() == before
    assert base.run_function(at_build, args=(2,)).digest() != before
    layer = image.spec(state).layers[-1]
    assert isinstance(layer, layers.RunFunction)
    assert (layer.name, layer.module, layer.python) == ("at_build", __name__, "")
    assert (state.sources / layer.sources / (__name__.replace(".", "/") + ".py")).exists()
    assert (state.blobs / layer.blob).exists()
    assert image.spec(state).digest == before
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3)
    assert image.digest() != before


def test_run_function_by_value(state: Home) -> None:
    layer = base.run_function(lambda: 1).spec(state).layers[-1]
    assert isinstance(layer, layers.RunFunction)
    assert (layer.module, layer.python) == ("", PYTHON)
    with pytest.raises(InvalidError, match="pickled"):
        base.run_function(at_build, args=(lambda: 1,)).digest()


def test_secrets_are_ids_in_the_layer() -> None:
    token = Token()
    image = base.run_commands("x", secrets=[token, None], env={"A": None, "B": "1"})
    assert image._dependencies() == (token,)
    layer = last(image)
    assert layer == layers.RunCommands(("x",), (("B", "1"),), ("st-1",))


def test_force_build(monkeypatch: pytest.MonkeyPatch) -> None:
    assert base.spec().force_from is None
    image = base.pip_install("a").run_commands("b", force_build=True).pip_install("c")
    assert image.spec().force_from == 2
    assert Image.debian_slim(force_build=True).pip_install("a").spec().force_from == 0
    for name in ("MINIMODAL_FORCE_BUILD", "MODAL_FORCE_BUILD", "MODAL_IGNORE_CACHE"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert base.spec().force_from == 0
    assert image.digest() == base.pip_install("a").run_commands("b").pip_install("c").digest()


def test_imports_raise_only_in_their_own_image(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = base.pip_install("six"), base.pip_install("idna")

    def enter(image: Image) -> None:
        with image.imports():
            import no_such_module_anywhere  # noqa: F401

    enter(mine)  # locally: passed over
    monkeypatch.setenv("MINIMODAL_IMAGE_RECIPE", mine.spec().recipe)
    enter(other)
    with pytest.raises(ModuleNotFoundError):
        enter(mine)
    with pytest.raises(ValueError, match="x"), other.imports():
        raise ValueError("x")


@dataclass
class Wanted:
    size: int


def fill(wanted: Wanted) -> None: ...


def test_what_a_build_function_is_given_tells_recipes_apart() -> None:
    recipes = [
        Image.debian_slim().run_function(fill, args=(Wanted(size),))._recipe() for size in (1, 2, 1)
    ]
    assert recipes[0] == recipes[2] != recipes[1]


def test_a_recipe_is_the_same_where_files_are_missing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    here = base.add_local_file(tmp_path / "x", "/x", copy=True).pip_install("six")
    there = base.add_local_file("/root/x", "/x", copy=True).pip_install("six")
    assert here.spec().recipe == there._recipe()
    assert here.spec().recipe != base.pip_install("six").spec().recipe


def test_json_round_trip(tmp_path: Path, state: Home) -> None:
    (tmp_path / "r.txt").write_text("six")
    image = (
        base.pip_install_from_requirements(tmp_path / "r.txt")
        .add_local_dir(tmp_path, "/d", copy=True, ignore=["home"])
        .run_commands("x", secrets=[Token()])
        .run_function(at_build)
        .dockerfile_commands("RUN x", build_args={"A": "1"})
        .add_local_file(tmp_path / "r.txt", "/x")
    )
    spec = image.spec(state)
    assert layers.decode(json.loads(json.dumps(layers.encode(spec)))) == spec


def test_pipe_and_repr() -> None:
    def add(image: Image, name: str) -> Image:
        return image.pip_install(name)

    assert base.pipe(add, "six").digest() == base.pip_install("six").digest()
    assert repr(base).startswith("<Image ")
    assert callable(FilePatternMatcher("x"))


def test_import_needs_only_the_standard_library() -> None:
    code = (
        "import minimodal.image, sys; print('asyncio' in sys.modules, 'cloudpickle' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_image_of_an_app_is_the_default_of_its_functions() -> None:
    app, image = App(), Image.debian_slim().env({"A": "1"})
    assert app.image is app.image
    app.image = image
    assert app.image is image
    with pytest.raises(InvalidError, match="image"):
        app.image = "python:3.11"  # type: ignore[assignment]  # on purpose
    with app.image.imports():
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
