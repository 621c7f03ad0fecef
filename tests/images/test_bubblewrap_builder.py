"""Images built and run in bubblewrap: what each step leaves, what fails how, and that the host's
files stay as they are."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from minimodal.backends.bubblewrap import open_backend
from minimodal.errors import BuildError
from minimodal.home import Home, open_home
from minimodal.image import Image
from minimodal.images.layer_store import LayerStore
from minimodal.types import ContainerSpec, ImageRef, Mount, new_id

pytestmark = pytest.mark.bubblewrap

base = Image.debian_slim()


class Token:
    def _secret_id(self) -> str:
        return "st-1"


async def secrets(ids: Any) -> dict[str, str]:
    return {"TOKEN": "hush-hush"} if ids else {}


@pytest.fixture(scope="module")
def state(scratch: Path) -> Iterator[Home]:
    """One home for all: layers are what these tests share with each other, as users' images do."""
    directory = tempfile.mkdtemp(dir=scratch)
    yield open_home(directory)
    shutil.rmtree(directory)


def build(home: Home, image: Image, lines: list[str] | None = None) -> ImageRef:
    return build_and_run(home, image, None, lines)[0]


def run(home: Home, image: Image, code: str, mounts: tuple[Mount, ...] = ()) -> str:
    return build_and_run(home, image, ("python", "-c", code), None, mounts)[1]


def shell(home: Home, image: Image, line: str) -> str:
    return build_and_run(home, image, ("/bin/sh", "-c", line))[1]


def build_and_run(
    home: Home,
    image: Image,
    command: tuple[str, ...] | None,
    lines: list[str] | None = None,
    mounts: tuple[Mount, ...] = (),
) -> tuple[ImageRef, str]:
    async def main() -> tuple[ImageRef, str]:
        config = SimpleNamespace(resolve_secrets=secrets)
        async with open_backend(home, config) as backend:
            ref = await backend.build(image.spec(home), (lines if lines is not None else []).append)
            if command is None:
                return ref, ""
            spec = ContainerSpec(new_id("ct"), "test", ref, command=command, mounts=mounts)
            async with backend.launch(spec, anyio.Event) as container:  # type: ignore[arg-type]
                with anyio.fail_after(30):
                    return ref, (await container.wait()).detail

    return anyio.run(main)


def test_packages(state: Home) -> None:
    image = base.pip_install("six", "idna<4").env(A="1").pip_install("idna==3.7")
    code = "import six, idna, os, sys; print(six.__file__, idna.__version__, os.environ['A'])"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    expected = f"/opt/venv/lib/python{version}/site-packages/six.py 3.7 1"
    assert run(state, image, code) == expected
    assert "No module named 'pytest'" in run(state, image, "import pytest")


@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_other_pythons(state: Home, version: str) -> None:
    try:
        found = run(
            state,
            Image.debian_slim(version).pip_install("six"),
            "import six, sys; print(sys.version)",
        )
    except BuildError as error:
        pytest.skip(str(error))
    assert found.startswith(version)


def test_commands_run_inside_and_keep_what_they_write(state: Home) -> None:
    image = (
        base.run_commands(
            "id -u; mkdir -p /models/empty; echo m > /models/a", "echo x > /usr/local/x"
        )
        .workdir("/srv/here")
        .run_commands("pwd > where; rm /usr/local/x; echo r > /root/r; python -m pip install six")
        .shell(["/bin/bash", "-c"])
        .run_commands("[[ -n $BASH_VERSION ]]")
    )
    lines: list[str] = []
    _, said = build_and_run(
        state,
        image,
        (
            "/bin/sh",
            "-c",
            "pwd; cat where /models/a /root/r; ls -d /models/empty; ls /usr/local/x; "
            "echo new > /models/b && echo new > /root/n; python -c 'import six'",
        ),
        lines,
    )
    assert "0" in lines  # root inside the build …
    assert said.splitlines() == [
        "/srv/here",
        "/srv/here",
        "m",
        "r",
        "/models/empty",
        "ls: cannot access '/usr/local/x': No such file or directory",
    ]


def test_sources_lie_over_what_the_image_has_in_root(state: Home, tmp_path: Path) -> None:
    from minimodal.sources import collect, snapshot

    (tmp_path / "script.py").write_text("")
    digest = snapshot(state, collect(tmp_path / "script.py"))
    image = base.run_commands("mkdir -p /root/.cache/hub; echo w > /root/.cache/hub/weights")
    code = "import os; print(sorted(os.listdir('/root')), open('/root/.cache/hub/weights').read())"
    said = run(state, image, code, (Mount("sources", digest, "/root"),))
    assert "script.py" in said
    assert said.endswith("w")


def test_local_files(state: Home, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.txt").write_text("a")
    (tmp_path / "d/link").symlink_to("a.txt")
    (tmp_path / "run.sh").write_text("#!/bin/sh\necho ran")
    (tmp_path / "run.sh").chmod(0o700)
    image = (
        base.add_local_dir(tmp_path / "d", "/data/d", copy=True)
        .add_local_file(tmp_path / "run.sh", "/bin/run-me", copy=True)
        .add_local_file(tmp_path / "d/a.txt", "/etc/over/", copy=True)
        .add_local_file(tmp_path / "run.sh", "/mounted/here.sh")
        .add_local_dir(tmp_path / "d", "/opt/d")
    )
    line = (
        "run-me; cat /data/d/link /etc/over/a.txt; sh /mounted/here.sh; cat /opt/d/link; ls /bin/sh"
    )
    assert shell(state, image, line).split() == ["ran", "aaran", "a/bin/sh"]


def test_a_local_file_that_changes_between_digest_and_copy_is_noticed(
    state: Home, tmp_path: Path
) -> None:
    (tmp_path / "x").write_text("1")
    spec = base.add_local_file(tmp_path / "x", "/x", copy=True).spec(state)
    (tmp_path / "x").write_text("2")

    async def main() -> None:
        async with open_backend(state, None) as backend:
            await backend.build(spec, lambda _: None)

    with pytest.raises(BuildError, match="changed while the image was being built"):
        anyio.run(main)


def test_secrets_reach_the_step_and_nothing_else(state: Home) -> None:
    image = base.run_commands(
        'echo "token=$TOKEN env=$E"; test -n "$TOKEN"', secrets=[Token()], env={"E": "e"}
    )
    lines: list[str] = []
    ref, said = build_and_run(state, image, ("/bin/sh", "-c", 'echo "[$TOKEN$E]"'), lines)
    assert said == "[]"
    assert "token=*** env=e" in lines
    found = subprocess.run(["grep", "-r", "hush-hush", str(state.layers)], check=False)
    assert found.returncode == 1
    assert "hush" not in repr(ref)


def test_run_function(state: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mm_built.py").write_text(
        "import mm_sibling\n"
        "def fetch(name, *, text):\n"
        "    import six, os\n"
        "    os.makedirs('/weights')\n"
        "    open('/weights/' + name, 'w').write(text + mm_sibling.END)\n"
    )
    (tmp_path / "mm_sibling.py").write_text("END = '!'")
    monkeypatch.syspath_prepend(tmp_path)
    fetch = importlib.import_module("mm_built").fetch
    image = base.pip_install("six").run_function(fetch, args=("w",), kwargs={"text": "hi"})
    assert shell(state, image, "cat /weights/w") == "hi!"
    by_value = base.run_function(lambda: open("/made", "w").write("by value") and None)
    assert shell(state, by_value, "cat /made") == "by value"
    with pytest.raises(BuildError, match="No module named 'six'"):
        build(state, base.run_function(fetch, args=("w",), kwargs={"text": "other"}))


def test_dockerfile_instructions(state: Home, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/a.ini").write_text("a=1\n")
    (tmp_path / "Dockerfile").write_text(
        f"FROM python:{sys.version_info[0]}.{sys.version_info[1]}-slim\n"
        "ARG WHO=nobody\n"
        "ENV GREETING=hello TARGET=/srv\n"
        "WORKDIR $TARGET/app\n"
        "COPY conf/ ./conf/\n"
        "# a comment\n"
        "RUN echo $GREETING $WHO \\\n  > said && \\\n  cat conf/a.ini >> said\n"
        'CMD ["cat", "said"]\n'
    )
    image = Image.from_dockerfile(
        tmp_path / "Dockerfile", context_dir=tmp_path, build_args={"WHO": "you"}
    )
    assert shell(state, image, "pwd; cat said").split() == ["/srv/app", "hello", "you", "a=1"]
    more = base.dockerfile_commands("RUN echo x > /one", "ENV Q=q")
    assert shell(state, more, "cat /one; echo $Q").split() == ["x", "q"]
    (tmp_path / "Dockerfile").write_text("FROM alpine\n")
    with pytest.raises(
        BuildError, match=r"line 1 of the Dockerfile: FROM alpine.*--backend docker"
    ):
        build(state, Image.from_dockerfile(tmp_path / "Dockerfile"))
    with pytest.raises(BuildError, match="line 2 of the Dockerfile: USER"):
        build(state, base.dockerfile_commands("RUN true", "USER me"))


def test_a_base_that_only_docker_has(state: Home) -> None:
    with pytest.raises(BuildError, match=r"cannot have ubuntu:24\.04.*--backend docker"):
        build(state, Image.from_registry("ubuntu:24.04"))
    assert run(state, Image.from_registry("ubuntu", add_python="3.11"), "print(1)") == "1"


def test_a_cached_image_is_found_quickly(state: Home) -> None:
    image = base
    for n in range(10):
        image = image.run_commands(f"echo {n} > /ten{n}")
    build(state, image)

    async def main() -> float:
        async with open_backend(state, None) as backend:
            spec = image.spec(state)
            await backend.build(spec, lambda _: None)
            started = time.perf_counter()
            await backend.build(spec, lambda _: None)
            return time.perf_counter() - started

    assert anyio.run(main) < 0.25  # 3 ms on an idle machine; the bound only catches a process


def test_f64_a_layer_that_was_removed_is_built_again(state: Home) -> None:
    image = base.run_commands("echo f64 > /f64").run_commands("echo more > /f64b")
    build(state, image)
    LayerStore(state).remove(image.spec().digests()[1])
    assert shell(state, image, "cat /f64 /f64b").split() == ["f64", "more"]


def test_force_build_replaces_a_layer_and_what_is_above(state: Home) -> None:
    def image(force: bool) -> Image:
        stamp = base.run_commands("date +%N > /stamp", force_build=force)
        return stamp.run_commands("cp /stamp /copied")

    before = shell(state, image(False), "cat /stamp /copied")
    assert shell(state, image(False), "cat /stamp /copied") == before
    after = shell(state, image(True), "cat /stamp /copied").split()
    assert after[0] == after[1] != before.split()[0]
    assert not list(state.layers.glob(".draft-*"))


TREES = ("/usr", "/etc", "/opt", "/var/lib/dpkg")


def fingerprint() -> str:
    """Names, kinds, sizes, owners, modes and times of everything in the host's directories."""
    found = hashlib.sha256()
    for tree in TREES:
        for place, names, files in os.walk(os.path.realpath(tree)):
            for name in sorted((*names, *files)):
                info = os.lstat(os.path.join(place, name))
                words = (place, name, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns)
                found.update(repr(words).encode())
    return found.hexdigest()


ATTACKS = """
echo evil >> /etc/passwd; rm -rf /usr/share/doc/adduser /etc/hostname; chmod 777 /usr/bin /etc
echo evil > /usr/bin/evil; chmod 4755 /usr/bin/evil; mv /usr/bin/env /usr/bin/env2
umount /usr; mount -o remount,rw /; mount -t tmpfs none /etc
for file in /proc/sysrq-trigger /proc/sys/kernel/hostname /proc/sys/vm/swappiness; do
  echo 1 > $file && echo "WROTE $file"
done
setpriv --reuid 65534 true && echo BECAME-NOBODY
unshare -U true && echo NEW-NAMESPACE
chroot / true && echo CHROOT
mknod /dev/mm-disk b 254 0 && echo MADE-A-DEVICE
true
"""


@pytest.mark.long
def test_the_host_is_untouched_whatever_a_step_does(state: Home) -> None:
    before = fingerprint()
    lines: list[str] = []
    image = base.run_commands(ATTACKS)
    said = build_and_run(state, image, ("/bin/sh", "-c", "tail -n1 /etc/passwd"), lines)[1]
    assert said == "evil"  # in the image it happened
    if shutil.which("apt-get"):
        assert "_" in shell(state, base.apt_install("figlet"), "figlet hi")
    assert fingerprint() == before
    marks = ("WROTE", "BECAME", "NEW-NAMESPACE", "CHROOT", "MADE")
    assert [line for line in lines if line.startswith(marks)] == []
    for path in state.layers.rglob("evil"):
        info = path.lstat()
        assert info.st_mode & 0o6000 == 0
        assert info.st_uid != 0 or os.getuid() != 0


def processes() -> list[str]:
    done = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if not line.startswith("Z")]


def test_what_a_command_leaves_running_is_ended(state: Home) -> None:
    build(state, base.run_commands("setsid sleep 62.5 & echo started"))
    assert not any("sleep 62.5" in line for line in processes())


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_f62_a_full_disk_leaves_no_half_layer(scratch: Path) -> None:
    directory = Path(tempfile.mkdtemp(dir=scratch))
    layers = directory / "cache/layers"
    layers.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(layers)], check=True)
    try:
        home = open_home(directory)
        with pytest.raises(BuildError, match="No space left"):
            build(home, base.run_commands("head -c 9000000 /dev/zero > /big"))
        assert not list(layers.glob(".draft-*"))
        assert shell(home, base.run_commands("echo small > /small"), "cat /small") == "small"
    finally:
        subprocess.run(["umount", str(layers)], check=True)
        shutil.rmtree(directory)
