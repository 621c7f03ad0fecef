"""Each method of `Image`, on Docker and on bubblewrap: a function runs in the image and says what it sees."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import json
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import minimodal
from minimodal.errors import BuildError
from minimodal.image import Image
from minimodal.images.host_python import HostPython, find_python
from minimodal.images.uv import find_uv
from tests.images import surface
from tests.images.lab import VERSION, Lab


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """The platform is shared: what is left is counted at its end."""


VERSIONS = """
from importlib.metadata import PackageNotFoundError, version
def of(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
seen = [of(name) for name in {names!r}]
"""


def installed(*names: str) -> str:
    return VERSIONS.format(names=names)


# --- where an image starts ------------------------------------------------------------------------


def test_debian_slim(lab: Lab) -> None:
    code = "import sys; seen = sys.version_info[:2]"
    assert lab.see(Image.debian_slim(), code) == tuple(sys.version_info[:2])
    assert lab.see(Image.debian_slim(python_version=VERSION), code) == tuple(sys.version_info[:2])


def test_from_registry(lab: Lab) -> None:
    image = Image.from_registry(
        f"python:{VERSION}-slim", setup_dockerfile_commands=[f"RUN echo {lab.unique} > /setup"]
    )
    assert lab.see(image, "seen = open('/setup').read()") == f"{lab.unique}\n"


@pytest.mark.long
def test_from_registry_add_python(lab: Lab, other_python: HostPython, downloads: None) -> None:
    tag = f"python:{VERSION}-slim"
    image = Image.from_registry(tag, add_python=other_python.minor, force_build=True)
    code = "import six, sys; seen = '%d.%d' % sys.version_info[:2]"
    assert lab.see(image.env(LAB=lab.unique).pip_install("six"), code) == other_python.minor
    deadline = time.monotonic() + 30  # our own packages are compiled for it meanwhile
    while not all(lab.see(image, COMPILED)):
        assert time.monotonic() < deadline


COMPILED = """
import json, os, minimodal.wire
seen = [os.path.exists(module.__spec__.cached) for module in (json, minimodal.wire)]
"""


@pytest.fixture
def other_python() -> HostPython:
    """A version that this machine has, and that is not the one that runs here."""
    for version in ("3.12", "3.13", "3.10", "3.11"):
        if version != VERSION:
            with contextlib.suppress(BuildError):
                return find_python(version)
    pytest.skip("this machine has one Python only")


@pytest.fixture
def downloads(
    lab: Lab, other_python: HostPython, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """On Docker `uv python install` downloads an interpreter: here this machine's own, from loopback."""
    if lab.backend != "docker":
        yield
        return
    (tmp_path / "served").mkdir()
    archive = tmp_path / "served" / "python.tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        prefix, name = Path(other_python.path).parent.parent, f"python{other_python.minor}"
        tar.add(prefix, "python", filter=without_ballast)
        # A Python built for its own place finds its library there only: the real ones are relocatable.
        tar.add(other_python.path, f"python/bin/{name}.real")
        start = tmp_path / "start"
        start.write_text(STARTER.format(name=name))
        start.chmod(0o755)
        tar.add(start, f"python/bin/{name}")
    minor = int(other_python.minor.split(".")[1])
    record = {
        "name": "cpython", "arch": {"family": "x86_64", "variant": None}, "os": "linux", "libc": "gnu",
        "major": 3, "minor": minor, "patch": 0, "prerelease": "", "variant": None, "build": None,
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }  # fmt: skip
    with served(tmp_path / "served") as url:
        record["url"] = f"{url}python.tar.gz"
        listing = {f"cpython-3.{minor}.0-linux-x86_64-gnu": record}
        (tmp_path / "served" / "list.json").write_text(json.dumps(listing))
        monkeypatch.setenv("UV_PYTHON_DOWNLOADS_JSON_URL", f"{url}list.json")
        yield


STARTER = """#!/bin/bash
bin=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$bin/../lib"
exec -a "$bin/{name}" "$bin/{name}.real" "$@"
"""


def without_ballast(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    parts = entry.name.split("/")
    ballast = {"test", "site-packages", "__pycache__", "idlelib", "include", "share", "ensurepip"}
    return None if ballast & set(parts) or parts[-1].endswith(".a") else entry


def test_from_dockerfile(lab: Lab, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "greeting").write_text("hello")
    (context / "left.out").write_text("no")
    (context / ".dockerignore").write_text("*.out\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM python:{VERSION}-slim\nARG WHO=nobody\nCOPY . /context\n"
        "RUN echo $WHO > /who\nENV PLACE=here\nWORKDIR /context\n"
    )
    image = Image.from_dockerfile(
        tmp_path / "Dockerfile", context_dir=context, build_args={"WHO": lab.unique}
    )
    code = """
import os
seen = open('/who').read().strip(), open('greeting').read(), os.environ['PLACE'], os.path.exists('left.out')
"""
    assert lab.see(image, code) == (lab.unique, "hello", "here", False)


def test_dockerfile_commands(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("data")
    image = lab.base.dockerfile_commands(
        "ARG COLOR", "COPY data.txt /data/", ["RUN echo $COLOR >> /data/data.txt", "ENV KEPT=yes"],
        context_dir=tmp_path, build_args={"COLOR": "green"},
    )  # fmt: skip
    code = "import os; seen = open('/data/data.txt').read(), os.environ['KEPT']"
    assert lab.see(image, code) == ("datagreen\n", "yes")


# --- packages -------------------------------------------------------------------------------------


def wheel(directory: Path, name: str, version: str) -> None:
    """A package of one module, as a wheel."""
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    """The URL of a directory on loopback."""
    handler = functools.partial(Quiet, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A package index on loopback: mmpkg 1.0 and 2.0rc1."""
    root = tmp_path / "index" / "mmpkg"
    root.mkdir(parents=True)
    for version in ("1.0", "2.0rc1"):
        wheel(root, "mmpkg", version)
    names = sorted(path.name for path in root.iterdir())
    (root / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))
    with served(tmp_path / "index") as url:
        yield url


def test_pip_install(lab: Lab) -> None:
    image = lab.base.pip_install("six==1.16.0", ["idna<4"])
    assert lab.see(image, installed("six", "tqdm"), env={"X": "1"}) == ["1.16.0", None]
    assert lab.see(image, "import idna, six; seen = bool(idna.__spec__.cached)")


def test_where_pip_install_takes_packages_from(lab: Lab, index: str) -> None:
    none_else = lab.base.pip_install("mmpkg", index_url=index)
    assert lab.see(none_else, installed("mmpkg")) == ["1.0"]
    extra = lab.base.pip_install("mmpkg", "six==1.16.0", extra_index_url=index, pre=True)
    assert lab.see(extra, installed("mmpkg", "six")) == ["2.0rc1", "1.16.0"]
    options = lab.base.pip_install("mmpkg", find_links=f"{index}mmpkg/", extra_options="--no-index")
    assert lab.see(options, "import mmpkg; seen = mmpkg.VERSION") == "1.0"


def test_uv_pip_install(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("idna==3.7\n")
    image = lab.base.uv_pip_install("six==1.16.0", requirements=[str(tmp_path / "more.txt")])
    assert lab.see(image, installed("six", "idna")) == ["1.16.0", "3.7"]


def test_pip_install_from_requirements(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("-c limits.txt\nsix  # comment\n")
    (tmp_path / "limits.txt").write_text("six<1.17\n")
    image = lab.base.pip_install_from_requirements(tmp_path / "requirements.txt")
    assert lab.see(image, installed("six")) == ["1.16.0"]


PROJECT = """
[project]
name = "p"
version = "1"
requires-python = ">=3.10"
dependencies = ["six==1.16.0"]
[project.optional-dependencies]
web = ["idna==3.7"]
[dependency-groups]
dev = ["iniconfig==2.0.0"]
"""


def test_pip_install_from_pyproject(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    image = lab.base.pip_install_from_pyproject(tmp_path / "pyproject.toml", ["web"])
    assert lab.see(image, installed("six", "idna", "p")) == ["1.16.0", "3.7", None]


def test_uv_sync(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    subprocess.run([find_uv(), "lock", "-q", "--project", str(tmp_path)], check=True)
    image = lab.base.uv_sync(str(tmp_path), extras=["web"], groups=["dev"])
    seen = lab.see(image, installed("six", "idna", "iniconfig", "p"))
    assert seen == ["1.16.0", "3.7", "2.0.0", None]


def test_a_list_that_grew_is_installed_onto_the_shorter_one(lab: Lab) -> None:
    base = lab.base.env(GROWN="1")
    with_six = base.pip_install("six<1.17")
    assert lab.see(with_six, installed("six", "idna")) == ["1.16.0", None]
    lab.lines.clear()
    assert lab.see(base.pip_install("idna<4", "six<1.17"), installed("six")) == ["1.16.0"]
    assert any("1 of its packages are there already" in line for line in lab.lines)
    lab.lines.clear()
    afresh = base.pip_install("idna<4", "six<1.17", "iniconfig", force_build=True)
    assert None not in lab.see(afresh, installed("six", "idna", "iniconfig"))
    assert not any("are there already" in line for line in lab.lines)


def test_apt_install(lab: Lab) -> None:
    code = """
import os, subprocess
said = subprocess.run(['hello', '-g', 'x'], capture_output=True, text=True).stdout
packages = [name for name in os.listdir('/var/cache/apt/archives') if name.startswith('hello')]
seen = said, packages, os.listdir('/var/lib/apt/lists')
"""
    said, packages, lists = lab.see(lab.base.apt_install("hello"), code)
    assert (said, packages) == ("x\n", [])
    assert lists == [] or lab.backend == "bubblewrap"  # there they are the host's own


# --- commands and functions -----------------------------------------------------------------------


def test_run_commands(lab: Lab) -> None:
    secret = minimodal.Secret.from_dict({"TOKEN": f"hush-{lab.unique}"})
    image = lab.base.run_commands(
        'echo "$TOKEN" | wc -c > /said; echo "token: $TOKEN"', ["echo $ONCE >> /said"],
        secrets=[secret], env={"ONCE": "once"},
    )  # fmt: skip
    code = """
import os
seen = open('/said').read().split(), os.environ.get('TOKEN'), os.environ.get('ONCE')
"""
    assert lab.see(image, code) == ([str(len(f"hush-{lab.unique}") + 1), "once"], None, None)
    assert any("token: ***" in line for line in lab.lines)
    assert not any(f"hush-{lab.unique}" in line for line in lab.lines)


def test_run_function(lab: Lab) -> None:
    volume = minimodal.Volume.from_name(
        f"weights-{lab.unique}-{lab.backend}", create_if_missing=True
    )
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"base"), "/base.txt")
    image = lab.base.run_function(
        surface.make_model,
        args=("m",),
        kwargs={"size": 2},
        secrets=[minimodal.Secret.from_dict({"TOKEN": "hush"})],
        volumes={"/weights": volume},
    )
    code = "import os; seen = open('/models/model.txt').read(), os.path.exists('/weights/base.txt')"
    assert lab.see(image, code) == ("mm|hush|base", False)
    assert b"".join(volume.read_file("made.txt")) == b"from m"


# --- settings -------------------------------------------------------------------------------------


def test_env_and_workdir(lab: Lab) -> None:
    image = lab.base.env({"A": "a 'b' $c"}, B="2").workdir("/srv/app").run_commands("echo $B > b")
    code = (
        "import os; seen = os.environ['A'], os.environ['B'], os.getcwd(), open('/srv/app/b').read()"
    )
    assert lab.see(image, code) == ("a 'b' $c", "2", "/srv/app", "2\n")


def test_env_goes_on_from_what_is_there(lab: Lab) -> None:
    image = (
        lab.base.env({"PATH": "/opt/first:$PATH", "TOP": "/srv", "ROUND": "1"})
        .run_commands("mkdir -p /made && command -v mkdir > /made/by")
        .env({"PATH": "/opt/second:${PATH}", "BELOW": "$TOP/below", "COST": "$5 ${unknown}"})
        .dockerfile_commands("ENV PATH=$PATH:/opt/third ROUND=2", "RUN echo $PATH > /made/path")
    )
    code = (
        "import os; env = os.environ; path = env['PATH']; rest = open('/made/path').read()\n"
        "seen = path, env['ROUND'], env['BELOW'], env['COST'], rest, open('/made/by').read()"
    )
    path, round, below, cost, built_with, by = lab.see(image, code)
    first, second, *own, last = path.split(":")
    assert (first, second, last) == ("/opt/second", "/opt/first", "/opt/third")
    assert "/usr/bin" in own
    assert not {"/opt/first", "$PATH"} & set(own)
    assert (round, below, cost) == ("2", "/srv/below", "$5 ${unknown}")
    assert built_with.startswith("/opt/second:/opt/first:")
    assert built_with.endswith("/bin:/opt/third\n")
    assert by.endswith("/mkdir\n")


def test_users_and_groups_are_made_and_kept(lab: Lab) -> None:
    """As the packages of many servers do when they are installed."""
    image = lab.base.run_commands("groupadd -r keepers", "useradd -r -g keepers keeper")
    code = "import pwd, grp; seen = pwd.getpwnam('keeper').pw_gid == grp.getgrnam('keepers').gr_gid"
    assert lab.see(image, code) is True


def test_entrypoint_and_cmd(lab: Lab) -> None:
    entry = lab.base.entrypoint(["/usr/bin/env", "STARTED_BY=entrypoint"]).cmd(["true"])
    assert lab.see(entry, "import os; seen = os.environ.get('STARTED_BY')") == "entrypoint"


def test_shell(lab: Lab) -> None:
    image = lab.base.shell(["/bin/bash", "-c"]).run_commands(
        "[[ -n $BASH_VERSION ]] && echo b > /b"
    )
    assert lab.see(image, "seen = open('/b').read()") == "b\n"


# --- the user's files -----------------------------------------------------------------------------


@pytest.mark.parametrize("copy", [False, True], ids=["mounted", "copied"])
def test_add_local_file_and_dir(lab: Lab, tmp_path: Path, copy: bool) -> None:
    (tmp_path / "tree" / "below").mkdir(parents=True)
    for name in ("one.txt", "below/two.txt", "no.log"):
        (tmp_path / "tree" / name).write_text(name)
    (tmp_path / "conf.ini").write_text(lab.unique)
    image = lab.base.add_local_file(tmp_path / "conf.ini", "/etc/mine/", copy=copy)
    image = image.add_local_dir(tmp_path / "tree", "/data/tree", copy=copy, ignore=["**/*.log"])
    code = """
import os
names = sorted(os.path.join(place, name) for place, _, names in os.walk('/data') for name in names)
seen = open('/etc/mine/conf.ini').read(), names
"""
    listing = ["/data/tree/below/two.txt", "/data/tree/one.txt"]
    assert lab.see(image, code) == (lab.unique, listing)
    (tmp_path / "conf.ini").write_text("changed")
    lab.lines.clear()
    assert lab.see(image, "seen = open('/etc/mine/conf.ini').read()") == "changed"
    assert any("add files:" in line for line in lab.lines) == copy


@pytest.mark.parametrize("copy", [False, True], ids=["mounted", "copied"])
def test_add_local_python_source(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy: bool
) -> None:
    package = tmp_path / f"mm_local_{lab.backend}_{copy}"
    package.mkdir()
    (package / "__init__.py").write_text("from .inner import VALUE\n")
    (package / "inner.py").write_text("VALUE = 7\n")
    (package / "notes.txt").write_text("not Python")
    monkeypatch.syspath_prepend(str(tmp_path))
    image = lab.base.add_local_python_source(package.name, copy=copy)
    code = f"""
import os
import {package.name} as module
seen = module.VALUE, sorted(n for n in os.listdir(os.path.dirname(module.__file__)) if n[0] != '_')
"""
    assert lab.see(image, code) == (7, ["inner.py"])


# --- the image as a whole -------------------------------------------------------------------------


def test_imports(lab: Lab) -> None:
    assert lab.see(surface.imported, "", surface.version_of_six).count(".") == 2


def test_build_and_force_build(lab: Lab) -> None:
    app = minimodal.App("builds")
    image = lab.base.run_commands("date +%N > /one").run_commands("date +%N > /two")
    with app.run():
        assert image.build(app) is image
    code = "seen = open('/one').read(), open('/two').read()"
    one, two = lab.see(image, code)
    assert lab.see(image, code) == (one, two)
    again = lab.base.run_commands("date +%N > /one")
    forced = lab.see(again.run_commands("date +%N > /two", force_build=True), code)
    assert forced[0] == one
    assert forced[1] != two
