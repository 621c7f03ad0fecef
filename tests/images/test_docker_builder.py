"""Images on a real Docker engine: what is in them, what is not, how often they are built."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import anyio
import cloudpickle
import pytest

from minimodal.backends.docker import DockerBackend
from minimodal.errors import BuildError
from minimodal.home import Home
from minimodal.layers import (
    Base,
    CopyFiles,
    Dockerfile,
    ImageSpec,
    Layer,
    LocalFile,
    PipInstall,
    RunCommands,
    RunFunction,
    SetEnv,
    Shell,
    Workdir,
)
from tests.docker_engine import (
    BASE_LAYERS,
    eventually,
    forget,
    none_left,
    opened_backend,
    output_of,
    short_home,
)
from tests.docker_proxy import misbehaving_engine

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

Lines = list[str]


class Bench:
    """A backend, and images that are gone after the test. No test meets another one's layers."""

    def __init__(self, backend: DockerBackend, home: Home) -> None:
        self.backend = backend
        self.home = home
        self.lines: Lines = []
        self._unique = SetEnv((("TEST", os.urandom(8).hex()),))
        self._specs: list[ImageSpec] = []

    def spec(self, *layers: Layer, **fields: Any) -> ImageSpec:
        spec = ImageSpec((*BASE_LAYERS, self._unique, *layers), **fields)
        self._specs.append(spec)
        return spec

    def own(self, spec: ImageSpec) -> ImageSpec:
        self._specs.append(spec)
        return spec

    async def output(self, spec: ImageSpec, code: str, **fields: Any) -> str:
        """What `code` sends to `engine` when it runs in the image."""
        ref = await self.backend.build(spec, self.lines.append)
        return await output_of(self.backend, code, image=ref, **fields)

    async def failure(self, spec: ImageSpec) -> str:
        with pytest.raises(BuildError) as raised:
            await self.backend.build(spec, self.lines.append)
        return str(raised.value)

    async def forget(self) -> None:
        """By a backend that runs no container, for a container keeps its image."""
        async with opened_backend(self.home) as backend:
            await forget(backend, *self._specs)


def on_bench(
    body: Callable[[Bench], Awaitable[Any]],
    around: Callable[[Home], AbstractAsyncContextManager[None]] = lambda home: nullcontext(),
    **config: Any,
) -> Any:
    async def main(home: Home) -> Any:
        bench = None
        try:
            async with around(home), opened_backend(home, **config) as backend:
                bench = Bench(backend, home)
                return await body(bench)
        finally:
            if bench is not None:
                await bench.forget()

    with short_home() as home:
        found = anyio.run(main, home)
        assert not list((home.cache / "staging").glob("*"))
        return found


def local_file(path: Path, target: str, mode: int = 0o644) -> LocalFile:
    return LocalFile(target, hashlib.sha256(path.read_bytes()).hexdigest(), str(path), mode)


def test_packages_are_installed_once_and_then_found_with_two_requests() -> None:
    requests: list[str] = []

    def note(request: str) -> None:
        requests.append(request)

    async def body(bench: Bench) -> None:
        spec = bench.spec(PipInstall(("six==1.17.0",)), RunCommands(("echo made > /made",)))
        code = "import six; engine.sendall((six.__version__ + open('/made').read()).encode())"
        assert await bench.output(spec, code) == "1.17.0made\n"
        assert any("+ six==1.17.0" in line for line in bench.lines)
        bench.lines.clear()
        requests.clear()
        await bench.backend.build(spec, bench.lines.append)
        assert bench.lines == []
        assert [line.split()[0] for line in requests] == ["GET", "GET"]

    on_bench(body, lambda home: observed(home, note))


@asynccontextmanager
async def observed(home: Home, note: Callable[[str], None]) -> AsyncIterator[None]:
    """Each request to the engine is shown to `note`."""
    async with misbehaving_engine(home.state / "d.sock", note) as host:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DOCKER_HOST", host)
            yield


def test_settings_hold_while_building_and_while_running() -> None:
    async def body(bench: Bench) -> None:
        spec = bench.spec(
            SetEnv((("WHO", "a 'quoted' $word"),)),
            Workdir("/data/here"),
            Shell(("/bin/bash", "-c")),
            RunCommands(('printf "%s|%s|%s" "$WHO" "$PWD" "$BASH" > /said',)),
        )
        code = "engine.sendall((open('/said').read() + '|' + os.environ['WHO'] + os.getcwd()).encode())"
        said = await bench.output(spec, code)
        assert said == "a 'quoted' $word|/data/here|/bin/bash|a 'quoted' $word/data/here"

    on_bench(body)


def test_secrets_and_index_settings_reach_the_step_and_stay_out_of_the_image() -> None:
    secret = "hunter2" + os.urandom(6).hex()

    async def resolve(ids: Sequence[str]) -> Mapping[str, str]:
        return {"TOKEN": secret} if "st-1" in ids else {}

    async def body(bench: Bench) -> None:
        commands = ("test ${#TOKEN} = 19", 'echo "got $TOKEN"', 'test -n "$UV_CACHE_DIR"')
        spec = bench.spec(
            RunCommands(commands, env=(("ONCE", "a-value-of-this-step"),), secrets=("st-1",))
        )
        ref = await bench.backend.build(spec, bench.lines.append)
        assert "got ***" in bench.lines
        images = bench.backend._api._client.images
        shown = json.dumps([await images.inspect(ref.name), await images.history(ref.name)])
        assert secret not in shown
        assert "a-value-of-this-step" not in shown
        assert "/dev/minimodal" not in shown
        async with images.export_image(ref.name) as exported:
            path = bench.home.state / "image.tar"
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in exported.iter_chunked(1 << 20):
                    await file.write(chunk)
        assert secret.encode() not in path.read_bytes()

    on_bench(body, resolve_secrets=resolve)


def test_a_layer_holds_what_the_step_wrote_and_nothing_of_ours() -> None:
    async def body(bench: Bench) -> None:
        spec = bench.spec(RunCommands(("mkdir /out; echo 1 > /out/result",)))
        ref = await bench.backend.build(spec, bench.lines.append)
        path = bench.home.state / "image.tar"
        async with bench.backend._api._client.images.export_image(ref.name) as exported:
            async with await anyio.open_file(path, "wb") as file:
                async for chunk in exported.iter_chunked(1 << 20):
                    await file.write(chunk)
        assert top_layer(path) == {"out", "out/result"}

    on_bench(body)


def top_layer(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        layer = tar.extractfile(json.load(manifest)[0]["Layers"][-1])
        with tarfile.open(fileobj=layer) as files:
            return set(files.getnames())


def test_a_cancelled_build_leaves_nothing_and_the_next_one_goes_on() -> None:
    async def body(bench: Bench) -> None:
        spec = bench.spec(RunCommands(("echo first > /first",)), RunCommands(("sleep ${NAP:-60}",)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.backend.build, spec, bench.lines.append)
            await eventually(lambda: any(line.startswith("step 4") for line in bench.lines))
            tasks.cancel_scope.cancel()
        await eventually(lambda: none_left(bench.backend))
        bench.lines.clear()
        with anyio.move_on_after(1):
            await bench.backend.build(spec, bench.lines.append)
        assert bench.lines[0] == "steps 1 to 3 of 4: cached"

    on_bench(body)


def test_files_are_copied_with_modes_and_links_and_directories_keep_theirs() -> None:
    async def body(bench: Bench) -> None:
        source = bench.home.state / "tool"
        source.write_text("#!/bin/sh\necho tool\n")
        link = bench.home.state / "link"
        link.symlink_to("tool")
        digest = hashlib.sha256(b"tool").hexdigest()
        files = (
            local_file(source, "/tmp/new/tool", 0o755),
            LocalFile("/tmp/new/link", digest, str(link), 0o120777),
        )
        code = """
import subprocess
mode = oct(os.stat('/tmp').st_mode & 0o7777)
said = subprocess.run(['/tmp/new/link'], capture_output=True, text=True).stdout
engine.sendall(f"{said}{mode} {os.stat('/tmp/new/tool').st_uid} {os.readlink('/tmp/new/link')}".encode())
"""
        assert await bench.output(bench.spec(CopyFiles(files)), code) == "tool\n0o1777 0 tool"

    on_bench(body)


def test_a_file_that_changed_after_it_was_digested_is_refused() -> None:
    async def body(bench: Bench) -> None:
        source = bench.home.state / "data"
        source.write_text("old")
        file = local_file(source, "/data")
        source.write_text("new")
        assert "changed while the image was being built" in await bench.failure(
            bench.spec(CopyFiles((file,)))
        )

    on_bench(body)


def test_dockerfile_instructions_over_layers_see_their_settings() -> None:
    async def body(bench: Bench) -> None:
        layers = (
            SetEnv((("WHO", 'me "$5"'),)),
            Workdir("/w"),
            Dockerfile('RUN echo "$WHO $PWD" > /f'),
        )
        assert await bench.output(
            bench.spec(*layers), "engine.sendall(open('/f','rb').read())"
        ) == ('me "$5" /w\n')

    on_bench(body)


def test_a_failing_dockerfile_instruction_is_named() -> None:
    async def body(bench: Bench) -> None:
        text = "FROM python:3.11-slim\nRUN echo $((40 + 2)); exit 9\n"
        words = await bench.failure(bench.own(ImageSpec((Dockerfile(text),))))
        assert words.startswith("step 1 of 1 failed with exit code 9: RUN echo $((40 + 2)); exit 9")
        assert "    42" in words.splitlines()
        words = await bench.failure(
            bench.own(ImageSpec((Dockerfile("FROM python:3.11-slim\nHM\n"),)))
        )
        assert "unknown instruction: HM" in words
        secret = Dockerfile("RUN true", secrets=("st-1",))
        assert "docker history" in await bench.failure(bench.spec(secret))

    on_bench(body)


@pytest.mark.long
def test_the_standard_library_has_bytecode_though_the_base_has_none() -> None:
    """Official Python images have none, and a container cannot keep what it compiles."""

    async def body(bench: Bench) -> None:
        bare = f"FROM python:3.11-slim\nRUN find / -xdev -name '*.pyc' -delete # {os.urandom(4).hex()}\n"
        code = "import json, os; engine.sendall(str(os.path.exists(json.__spec__.cached)).encode())"
        assert await bench.output(bench.own(ImageSpec((Dockerfile(bare),))), code) == "True"

    on_bench(body)


def test_a_base_in_which_nothing_runs_is_taken_as_it_is() -> None:
    async def body(bench: Bench) -> None:
        spec = bench.own(ImageSpec((Dockerfile("FROM scratch\nENV KEPT=yes\n"),)))
        assert ("KEPT", "yes") in (await bench.backend.build(spec, bench.lines.append)).env

    on_bench(body)


def test_a_function_runs_at_build_time_and_its_files_are_writable() -> None:
    async def body(bench: Bench) -> None:
        def download(text: str) -> None:
            import os

            os.makedirs(os.path.expanduser("~/.cache/model"))
            with open(os.path.expanduser("~/.cache/model/weights"), "w") as file:
                file.write(text)

        blob = cloudpickle.dumps((download, ("trained",), {}))
        bench.home.blobs.mkdir(parents=True)
        (bench.home.blobs / "b1").write_bytes(blob)
        layer = RunFunction("download", source=os.urandom(4).hex(), blob="b1", python="3.11")
        code = """
path = os.path.expanduser('~/.cache/model/weights')
open(path, 'a').write(' here')
engine.sendall(open(path, 'rb').read())
"""
        assert await bench.output(bench.spec(layer), code) == "trained here"

    on_bench(body)


@pytest.mark.parametrize(
    ("tag", "way"),
    [
        ("python:3.13-slim", "`minimodal image bootstrap --python 3.13`"),
        ("localhost:1/nothing:here", "`docker pull localhost:1/nothing:here`"),
    ],
)
def test_a_base_that_cannot_be_pulled_names_the_way_out(tag: str, way: str) -> None:
    async def body(bench: Bench) -> None:
        if await bench.backend._api.image(tag):
            pytest.skip(f"this engine has {tag}")
        words = await bench.failure(ImageSpec((Base(tag),)))
        assert words.startswith(f"step 1 of 1 failed: the engine has no image {tag}")
        assert way in words

    on_bench(body)
