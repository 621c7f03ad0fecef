"""Images under faults: F61 to F67. Builds go through the public face, on each backend."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import http.server
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import minimodal
from minimodal import localfiles
from minimodal.config import load_config
from minimodal.errors import BuildError, InvalidError
from minimodal.home import Home, open_home
from minimodal.host import Host
from minimodal.image import Image
from tests.docker_engine import forget_images
from tests.faults import functions
from tests.faults.processes import HostProcess
from tests.faults.suite import Platform, Watch, on
from tests.images.surface import look

Seen = Callable[[str], None]


def base() -> Image:
    """What no other test has built upon."""
    return Image.debian_slim().env(FAULT=secrets.token_hex(8))


def see(image: Image, code: str) -> Any:
    """What `code` leaves in `seen` in a container of the image."""
    app = minimodal.App()
    looking = app.function(image=image)(look)
    with app.run():
        return looking.remote(code)


def build(image: Image) -> None:
    app = minimodal.App()
    with app.run():
        image.build(app)


@pytest.mark.fault(
    "F61",
    injected="step 3 of 5 fails: run_commands('exit 7')",
    expected="the error names step, exit code and tail; steps before it are kept; nothing half-built runs",
)
@on("docker", "bubblewrap")
def test_f61_a_step_fails(platform: Platform, events: Watch, seen: Seen) -> None:
    image = base().run_commands("echo one > /one")  # steps 1 to 3: base, env, the first command
    bad = image.run_commands("echo the tail; exit 7").run_commands("true")
    with pytest.raises(BuildError) as raised:
        build(bad)
    words = str(raised.value)
    assert words.startswith("step 4 of 5 failed with exit code 7: echo the tail; exit 7")
    assert "    the tail" in words.splitlines()
    with pytest.raises(BuildError):
        see(bad, "seen = 1")
    events.rest()
    assert see(image.run_commands("cat /one > /two"), "seen = open('/two').read()") == "one\n"
    cached = [e for e in events.rest() if "steps 1 to 3 of 4: cached" in str(e.fields)]
    assert cached
    seen(words.splitlines()[0])


SCRIPT = """
import sys
import minimodal
app = minimodal.App("killed")
image = minimodal.Image.debian_slim().env(FAULT={unique!r})
image = image.run_commands("echo one > /one").run_commands({slow!r})
@app.function(image=image)
def f() -> str:
    return open("/one").read() + open("/two").read()
@app.local_entrypoint()
def main() -> None:
    print("value", repr(f.remote()), flush=True)
"""


@pytest.mark.fault(
    "F62",
    injected="SIGKILL or Ctrl-C to the engine in the middle of a build step",
    expected="the next build goes on from the last whole layer; no draft, container or process is left",
)
@pytest.mark.parametrize("how", ["KILL", "INT"])
@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    ],
)
def test_f62_the_builder_is_killed(
    own_home: Home, tmp_path: Path, backend: str, how: str, seen: Seen
) -> None:
    slow = "echo two > /two; for n in 1 2 3 4 5; do echo in the step; sleep 0.5; done"
    script = tmp_path / "killed.py"
    script.write_text(SCRIPT.format(unique=secrets.token_hex(8), slow=slow))
    environment = {
        **os.environ,
        "MINIMODAL_HOME": str(own_home.state.parent),
        "MINIMODAL_BACKEND": backend,
    }
    command = [sys.executable, "-m", "minimodal", "run", "--progress", "plain", str(script)]
    pipes: Any = {"env": environment, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **pipes) as engine:
        assert engine.stderr is not None
        assert any(line.endswith(": in the step\n") for line in engine.stderr)
        engine.send_signal(getattr(signal, f"SIG{how}"))
        engine.communicate(timeout=30)
    again = subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **pipes)
    assert again.returncode == 0, again.stderr
    assert "value 'one\\ntwo\\n'" in again.stdout
    assert "steps 1 to 3 of 4: cached" in again.stderr
    assert not list(own_home.layers.glob(".draft-*"))
    assert not list((own_home.cache / "staging").glob("*"))
    if backend == "docker":
        forget_images(own_home)
    seen("built on from step 3")


@pytest.mark.fault(
    "F63",
    injected="one layer asked for 50 times at once, by two engines with one home",
    expected="it is built once, and everybody gets it",
)
@on("docker", "bubblewrap", "process")
def test_f63_two_engines_build_one_layer(
    platform: Platform, events: Watch, home: Path, seen: Seen
) -> None:
    lines: list[str] = []
    image = Image.debian_slim().env(FAULT=secrets.token_hex(8))
    image = image.run_commands("python -V")
    spec = image.spec(open_home(home))
    with Host(load_config({"backend": platform.backend})) as other:
        other.subscribe(lambda event: lines.append(str(event.fields.get("text"))))
        hosts = [platform.host, other] * 25
        asked = [
            asyncio.run_coroutine_threadsafe(host.engine.builds.build(spec), host.loop)
            for host in hosts
        ]
        names = [future.result(60).name for future in asked]
    lines += [str(event.fields.get("text")) for event in events.rest()]
    assert len(names) == 50
    assert len(set(names)) == 1
    assert lines.count("step 3 of 3: run_commands python -V") == 1
    seen("made once for 50")


@pytest.mark.fault(
    "F64",
    injected="docker rmi -f, or rm -r of a layer, while a container of the image runs",
    expected="what runs is unharmed; the next start builds what is missing, and never pulls our own tag",
)
@on("docker", "bubblewrap")
def test_f64_an_image_is_removed_behind_our_back(
    platform: Platform, events: Watch, seen: Seen
) -> None:
    image = base().run_commands("echo made > /made")
    app = minimodal.App()
    waiting = app.function(image=image, max_containers=2)(functions.wait)
    looking = app.function(image=image)(look)
    with app.run(), ThreadPoolExecutor(1) as threads:
        running: Future[Any] = threads.submit(waiting.remote)
        who = events.line("who ")
        _remove(platform, image.digest())
        assert looking.remote("seen = open('/made').read()") == "made\n"
        _release(who)
        assert running.result(20) == "released"
    texts = [str(event.fields.get("text")) for event in events.rest()]
    assert any("run_commands echo made > /made" in text for text in texts)
    assert not any("ulling" in text for text in texts)
    seen("built again for the next container")


def _remove(platform: Platform, digest: str) -> None:
    if platform.backend == "docker":
        platform.run(lambda: _api(platform).remove_image(f"minimodal/{digest}", force=True))
    else:
        layers = open_home(None).layers
        shutil.move(layers / digest, layers / f".draft-{digest}")


def _api(platform: Platform) -> Any:
    return platform.engine.backend._api  # type: ignore[attr-defined]  # only Docker's has one


def _release(who: str) -> None:
    HostProcess.of(who).signal(signal.SIGUSR2)


# --- F65 ------------------------------------------------------------------------------------------


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index that can do what an index should not."""

    fault = ""

    def do_GET(self) -> None:
        if not self.path.endswith(".whl") or not self.fault:
            return super().do_GET()
        if self.fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"PK")
            self.connection.shutdown(socket.SHUT_RDWR)
        elif self.fault == "hang":
            self.server.stopped.wait(30)  # type: ignore[attr-defined]
        return None

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def index(directory: Path, fault: str) -> Iterator[tuple[str, type[Index]]]:
    """The URL of an index with one package, `mmfault`, and the class whose `fault` can be changed."""
    name = "mmfault-1.0-py3-none-any.whl"
    (directory / "mmfault").mkdir(parents=True)
    with zipfile.ZipFile(directory / "mmfault" / name, "w") as wheel:
        wheel.writestr("mmfault.py", f"VALUE = {os.urandom(4).hex()!r}\n")
        wheel.writestr(
            "mmfault-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: mmfault\nVersion: 1.0\n",
        )
        wheel.writestr(
            "mmfault-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr("mmfault-1.0.dist-info/RECORD", "")
    digest = hashlib.sha256((directory / "mmfault" / name).read_bytes()).hexdigest()
    wrong = "0" * 64 if fault == "wrong hash" else digest
    page = directory / "mmfault" / "index.html"
    page.write_text(f'<a href="{name}#sha256={wrong}">{name}</a>\n')
    handler = type("Faulty", (Index,), {"fault": fault})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(directory))
    )
    server.stopped = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
        page.write_text(f'<a href="{name}#sha256={digest}">{name}</a>\n')
    finally:
        server.stopped.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.fault(
    "F65",
    injected="an index on loopback that is down, hangs, cuts the file, or names a wrong hash",
    expected="an error in bounded time that names package and index; the cache is not poisoned",
)
@pytest.mark.parametrize("fault", ["down", "hang", "cut", "wrong hash"])
@on("docker", "bubblewrap", "process")
def test_f65_a_bad_package_index(
    platform: Platform, tmp_path: Path, fault: str, seen: Seen
) -> None:
    env = {"UV_HTTP_TIMEOUT": "1", "UV_HTTP_RETRIES": "0"}
    started = time.monotonic()
    with index(tmp_path, fault) as (url, handler):
        host = url.removeprefix("http://")
        wanted = "http://127.0.0.1:9" if fault == "down" else url
        with pytest.raises(BuildError) as raised:
            build(base().pip_install("mmfault", index_url=wanted, env=env))
        words = str(raised.value)
        assert "failed with exit code" in words.splitlines()[0]
        assert "pip install mmfault" in words.splitlines()[0]
        assert ("127.0.0.1:9" if fault == "down" else host) in words
        assert time.monotonic() - started < 30
        handler.fault = ""
        name = "mmfault-1.0-py3-none-any.whl"
        (tmp_path / "mmfault" / "index.html").write_text(f'<a href="{name}">{name}</a>\n')
        good = base().pip_install("mmfault", index_url=url, env=env)
        expected = (zipfile.ZipFile(tmp_path / "mmfault" / name).read("mmfault.py")).decode()
        value = see(good, "import mmfault; seen = mmfault.VALUE")
        assert expected == f"VALUE = {value!r}\n"
    seen(words.splitlines()[-1].strip()[:100])


# --- F66, F67 -------------------------------------------------------------------------------------


@pytest.mark.fault(
    "F66",
    injected="a file that is rewritten in a loop while images with it are built",
    expected="each image has one version of it, whole; or the build says that it changed",
)
@on("docker", "bubblewrap")
def test_f66_a_file_changes_while_it_is_copied(
    platform: Platform, tmp_path: Path, seen: Seen
) -> None:
    path, stop = tmp_path / "data.txt", threading.Event()
    versions = [str(number) * 200_000 for number in range(10)]
    path.write_text(versions[0])

    def rewrite() -> None:
        while not stop.is_set():
            for text in versions:
                (tmp_path / "part").write_text(text)
                os.replace(tmp_path / "part", path)

    writer = threading.Thread(target=rewrite)
    writer.start()
    whole = refused = 0
    reasons: list[str] = []
    try:
        for _ in range(4):
            try:
                image = base().add_local_file(path, "/data.txt", copy=True)
                kinds = see(image, "text = open('/data.txt').read(); seen = len(text), set(text)")
                assert kinds[0] == 200_000
                assert len(kinds[1]) == 1
                whole += 1
            except (BuildError, InvalidError) as error:
                refused += 1
                reasons.append(str(error))
    finally:
        stop.set()
        writer.join()
    assert all("changed while" in each or "keeps changing" in each for each in reasons)
    seen(f"{whole} whole, {refused} refused")


@pytest.mark.fault(
    "F67",
    injected="a directory with a link to /etc, a name with a newline; then a FIFO, a socket, many files",
    expected="links stay links, odd names arrive; the rest is refused by name at once",
)
@on("docker", "bubblewrap")
def test_f67_a_hostile_directory(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    with tempfile.TemporaryDirectory(prefix="d") as name:  # short: a socket lies in it
        tree = Path(name)
        (tree / "etc").symlink_to("/etc")
        (tree / "two\nlines").write_text("odd")
        code = """
import os
place = '/hostile'
seen = os.readlink(f'{place}/etc'), open(f'{place}/two\\nlines').read(), sorted(os.listdir(place))
"""
        image = base().add_local_dir(tree, "/hostile", copy=True)
        assert see(image, code) == ("/etc", "odd", ["etc", "two\nlines"])
        os.mkfifo(tree / "pipe")
        with pytest.raises(InvalidError, match="pipe is a pipe: add it to ignore="):
            see(image, "seen = 1")
        (tree / "pipe").unlink()
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tree / "sock"))
            with pytest.raises(InvalidError, match="sock is a socket: add it to ignore="):
                see(image, "seen = 1")
        (tree / "sock").unlink()
        (tree / "third").touch()
        monkeypatch.setattr(localfiles, "MAX_FILES", 2)
        with pytest.raises(InvalidError, match=r"step 3 of 3 of the image: .* more than 2 files"):
            image.digest()
    seen("a link to /etc is a link; pipe, socket and too many files are refused")
