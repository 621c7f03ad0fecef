"""Environments of the process backend: real installs, run by the interpreter that the image names."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from minimodal.engine.build_ops import layers_of
from minimodal.errors import BuildError, PythonMismatch
from minimodal.home import Home, open_home
from minimodal.image import Image
from minimodal.images.process_builder import ProcessBuilder
from minimodal.types import ImageRef

base = Image.debian_slim()


@pytest.fixture
def state(scratch: Path, uv_cache: Path) -> Iterator[Home]:
    directory = tempfile.mkdtemp(dir=scratch)
    home = open_home(directory)
    (home.cache / "uv").symlink_to(uv_cache)
    yield home
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def uv_cache(scratch: Path) -> Path:
    (scratch / "uv").mkdir(exist_ok=True)
    return scratch / "uv"


def build(home: Home, image: Image, lines: list[str] | None = None, **env: str) -> ImageRef:
    async def main() -> ImageRef:
        report = (lines if lines is not None else []).append
        builder = ProcessBuilder(home, {**os.environ, **env}, secrets)
        return await builder.build(image.spec(home), report)

    return anyio.run(main)


async def secrets(ids: Any) -> dict[str, str]:
    return {"TOKEN": "hush-hush"} if ids else {}


class Token:
    def _secret_id(self) -> str:
        return "st-1"


def run(ref: ImageRef, code: str, **env: str) -> str:
    environment = {**dict(ref.env), **env}
    command = [ref.python, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


def test_packages_and_layers(state: Home) -> None:
    lines: list[str] = []
    ref = build(state, base.pip_install("six"), lines)
    assert "six.py" in run(ref, "import six; print(six.__file__)")
    assert "No module named 'idna'" in run(ref, "import idna")
    more = build(state, base.pip_install("six").pip_install("idna").env(A="1"), lines)
    assert run(more, "import six, idna, os; print(os.environ['A'])") == "1"
    assert "No module named 'idna'" in run(ref, "import idna")  # the clone did not change it
    assert any(line.startswith("steps 1 to 2 of 4: cached") for line in lines)
    script = Path(more.python).parent / "idna"
    if script.exists():
        assert subprocess.run([script, "--version"], check=False).returncode == 0
    assert not list(state.environments.glob(".draft-*"))


def test_the_dashboard_knows_how_long_each_step_took(state: Home) -> None:
    lines: list[str] = []
    image = base.pip_install("six", "idna")
    build(state, image, lines)
    layer = layers_of(image.spec(state), lines)[-1]
    assert "six" in layer["text"]
    assert isinstance(layer["seconds"], float)


def test_a_built_image_is_found_without_a_process(
    state: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = base.pip_install("six")
    ref = build(state, image)
    monkeypatch.setattr(subprocess, "Popen", None)
    lines: list[str] = []
    assert build(state, image, lines) == ref
    assert lines == []
    assert build(state, image.env(B="2")).name == ref.name


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_other_pythons(state: Home, version: str) -> None:
    try:
        ref = build(state, Image.debian_slim(version))
    except BuildError as error:
        pytest.skip(str(error))
    assert run(ref, "import sys; print('%d.%d' % sys.version_info[:2])") == version


def test_a_python_that_is_not_here(state: Home) -> None:
    with pytest.raises(BuildError, match=r"step 1 of 1 failed: no Python 3\.77"):
        build(state, Image.debian_slim("3.77"))


def test_requirements_pyproject_and_uv_sync(state: Home, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("six\n-r more.txt\n-c limits.txt\n")
    (tmp_path / "more.txt").write_text("idna\n")
    (tmp_path / "limits.txt").write_text("idna<3.8\n")
    ref = build(state, base.pip_install_from_requirements(tmp_path / "r.txt"))
    assert run(ref, "import six, idna; print(idna.__version__ < '3.8')") == "True"
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname="x"\nversion="1"\ndependencies=["six"]\n[dependency-groups]\nweb=["idna"]\n'
    )
    ref = build(state, base.pip_install_from_pyproject(tmp_path / "pyproject.toml"))
    assert run(ref, "import six") == ""
    ref = build(state, base.uv_sync(tmp_path, groups=["web"]))
    assert run(ref, "import six, idna") == ""
    assert "No module named 'x'" in run(ref, "import x")


def test_commands_see_secrets_that_nothing_keeps(state: Home, tmp_path: Path) -> None:
    script = tmp_path / "show.py"
    script.write_text("import os; print(os.environ['TOKEN'], os.environ['E'], os.environ['S'])")
    image = base.env(S="s").run_commands(
        f"python {script}", "pip install six", secrets=[Token()], env={"E": "e"}
    )
    lines: list[str] = []
    ref = build(state, image, lines)
    assert "*** e s" in lines
    assert (
        run(ref, "import six, os; print('TOKEN' in os.environ, 'E' in os.environ)") == "False False"
    )


def test_run_function(state: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mm_at_build.py").write_text(
        "import os, mm_beside\n"
        "def leave(path, *, text):\n"
        "    open(path, 'w').write(text)\n"
        "    print('secret is', os.environ['TOKEN'])\n"
    )
    (tmp_path / "mm_beside.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    leave = importlib.import_module("mm_at_build").leave
    target, lines = tmp_path / "left", []
    image = base.run_function(leave, args=(str(target),), kwargs={"text": "x"}, secrets=[Token()])
    build(state, image, lines)
    assert target.read_text() == "x"
    assert "secret is ***" in lines
    lines.clear()
    build(state, image, lines)
    assert lines == []
    with pytest.raises(BuildError, match=r"run_function\(leave\)") as caught:
        build(state, base.run_function(leave, args=("/no/such/place",), kwargs={"text": "x"}))
    assert "FileNotFoundError" in caught.value.log


def test_run_function_by_value(state: Home, tmp_path: Path) -> None:
    path = str(tmp_path / "left")
    build(state, base.run_function(lambda: open(path, "w").close()))
    assert os.path.exists(path)


def test_run_function_by_value_stays_on_its_python(state: Home) -> None:
    other = "3.12" if sys.version_info[:2] != (3, 12) else "3.11"
    with pytest.raises(PythonMismatch, match=f"the image has {other}"):
        build(state, Image.debian_slim(other).run_function(lambda: None))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (base.apt_install("curl"), "AptInstall"),
        (base.run_commands("make install"), "make install"),
        (base.run_commands("pip install x && rm -rf /x"), "rm -rf"),
        (base.dockerfile_commands("RUN x"), "Dockerfile"),
        (Image.from_registry("ubuntu:24.04"), "ubuntu:24.04"),
        (base.add_local_file(__file__, "/x/y.py", copy=True), "CopyFiles"),
        (base.add_local_file(__file__, "/x/y.py"), "/x/y.py"),
    ],
)
def test_what_it_cannot_have_is_refused_with_the_way_out(
    state: Home, image: Image, words: str
) -> None:
    with pytest.raises(BuildError, match="--backend bubblewrap or --backend docker") as caught:
        build(state, image)
    assert words in str(caught.value)


def test_bad_packages_are_named_and_leave_nothing(state: Home) -> None:
    lines: list[str] = []
    with pytest.raises(BuildError, match=r"step 3 of 3 failed with exit code 1") as caught:
        build(state, base.pip_install("six").pip_install("no-such-package-anywhere-mm"), lines)
    assert "no-such-package-anywhere-mm" in caught.value.log
    assert "Steps 1 to 2 are kept" in str(caught.value)
    with pytest.raises(BuildError, match="idna"):
        build(state, base.pip_install("idna<3", "idna>3"))
    assert not list(state.environments.glob(".draft-*"))
    lines.clear()
    build(state, base.pip_install("six"), lines)
    assert lines == []


def test_f63_one_layer_is_built_once(state: Home) -> None:
    image, lines = base.pip_install("six"), []

    async def main() -> None:
        engines = [ProcessBuilder(state, os.environ) for _ in range(2)]
        spec = image.spec(state)
        async with anyio.create_task_group() as tasks:
            for n in range(50):
                tasks.start_soon(engines[n % 2].build, spec, lines.append)

    anyio.run(main)
    assert len([line for line in lines if line == "step 2 of 2: pip_install six"]) == 1


def test_f63_another_takes_over_when_the_builder_is_cancelled(state: Home) -> None:
    image, lines = base.run_commands("python -c pass", "python -V"), []

    async def main() -> None:
        builder = ProcessBuilder(state, os.environ)
        spec = image.spec(state)
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as first:

                def report(line: str) -> None:
                    if "run_commands" in line:
                        first.cancel()

                tasks.start_soon(builder.build, spec, lines.append)
                await builder.build(spec, report)

    anyio.run(main)
    assert any(line.startswith("Python 3") for line in lines)
    assert not list(state.environments.glob(".draft-*"))


ENGINE = """
import anyio, os, sys
from minimodal.home import open_home
from minimodal.image import Image
from minimodal.images.process_builder import ProcessBuilder

home = open_home(sys.argv[1])
image = Image.debian_slim().pip_install("six").run_commands("python " + sys.argv[2])
anyio.run(ProcessBuilder(home, os.environ).build, image.spec(home), lambda x: print(x, flush=True))
"""


def test_f62_a_killed_build_is_resumed_and_swept(state: Home, tmp_path: Path) -> None:
    script = tmp_path / "hang.py"
    script.write_text("import time, os; print('hanging', os.getpid(), flush=True)\ntime.sleep(60)")
    command = [sys.executable, "-c", ENGINE, str(state.cache.parent), str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        line = next(line for line in engine.stdout if line.startswith("hanging"))
        engine.kill()
    os.kill(int(line.split()[1]), 9)
    assert list(state.environments.glob(".draft-*"))
    lines: list[str] = []
    build(state, base.pip_install("six").pip_install("idna"), lines)
    assert lines[0] == "steps 1 to 2 of 3: cached"
    assert not list(state.environments.glob(".draft-*"))


def test_force_build(state: Home) -> None:
    lines: list[str] = []
    build(state, base.pip_install("six"))
    ref = build(state, base.pip_install("six", force_build=True), lines)
    assert lines[0] == "step 1 of 2: cached"
    assert any("pip_install" in line for line in lines)
    assert run(ref, "import six") == ""
