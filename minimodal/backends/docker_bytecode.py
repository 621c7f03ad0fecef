"""Bytecode of our packages for images whose Python is of another version than the engine's.

A container cannot write it beside read-only packages, and without it each start compiles them, which
takes 0.3 s. So they are compiled once for each image, in a container with nothing of the user's in
it. Each image has a directory of its own: what its interpreter made runs in its containers alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import logging
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from minimodal.errors import Error
from minimodal.home import Home
from minimodal.images.build import StepFailed
from minimodal.images.docker_step import BuildContainers
from minimodal.types import ImageRef

from .bundle import TARGET, bundle, packages, runs_in_containers
from .docker_api import DockerApi
from .docker_requests import DockerFailure

log = logging.getLogger(__name__)

WITHIN = 60.0  # seconds
MAX_BYTES = 32 << 20  # of what a container says
OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"
_VERSION = re.compile(r"3\.\d{1,2}")

# A line for each file: its path, and the base64 of its bytecode (PEP 552, a hash that nobody reads).
_COMPILE = """
import base64, importlib.util, marshal, os, sys
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(folder, name)
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        head = importlib.util.MAGIC_NUMBER + bytes([1]) + bytes(11)
        cached = importlib.util.cache_from_source(path)
        print(cached, base64.b64encode(head + marshal.dumps(code)).decode())
"""


class ImageBytecode:
    """Of one engine. `packages` gives what to mount; `note` sees to it that it is fast next time."""

    def __init__(
        self, api: DockerApi, home: Home, containers: BuildContainers, tasks: TaskGroup
    ) -> None:
        self._api = api
        self._home = home
        self._containers = containers
        self._tasks = tasks
        self._noted: set[tuple[str, str]] = set()  # image, version

    def packages(self, image: ImageRef) -> tuple[tuple[Path, str], ...]:
        """(directory on the host, absolute target in the container) of our packages."""
        plain = bundle(self._home)
        try:
            directory = _directory(plain, image, _note(plain, image).read_text())
        except OSError:
            directory = plain
        return packages(directory)

    def note(self, image: ImageRef, version: str) -> None:
        """The agent in a container of the image runs on this Python."""
        known = version == OURS or (image.name, version) in self._noted
        if not known and _VERSION.fullmatch(version):
            self._noted.add((image.name, version))
            self._tasks.start_soon(self._make, image, version)

    async def _make(self, image: ImageRef, version: str) -> None:
        """Never raises: it only saves time."""
        plain = await anyio.to_thread.run_sync(bundle, self._home)
        try:
            if not _directory(plain, image, version).is_dir():
                with anyio.fail_after(WITHIN):
                    said = await self._compiled(plain, image)
                await anyio.to_thread.run_sync(_keep, plain, image, version, said)
            _note(plain, image).write_text(version)
        except (DockerFailure, StepFailed, Error, OSError, TimeoutError, ValueError) as error:
            log.info("containers of %s start slower, without bytecode: %s", image.name, error)

    async def _compiled(self, plain: Path, image: ImageRef) -> bytes:
        archive = await anyio.to_thread.run_sync(_archive, plain)
        command = (image.python, "-I", "-S", "-c", _COMPILE, TARGET)
        said = bytearray()
        async with self._containers.running(image.name, (), host_network=False) as container:
            await container.put(archive)
            async with self._api.exec(container.id, command, env={}, user="0") as (_, output):
                while (message := await output.read()) is not None:
                    said += message[1] if message[0] == 1 else b""
                    if len(said) > MAX_BYTES:
                        raise ValueError("its interpreter says too much")
        return bytes(said)


def _note(plain: Path, image: ImageRef) -> Path:
    """The file that says of which Python an image's bytecode is."""
    key = hashlib.sha256(image.name.encode()).hexdigest()[:16]
    return plain.with_name(f"{plain.name}-{key}")


def _directory(plain: Path, image: ImageRef, version: str) -> Path:
    return _note(plain, image).with_suffix(f".{version}")


def _archive(plain: Path) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in filter(runs_in_containers, _sources(plain)):
            tar.add(plain / path, f"{TARGET.lstrip('/')}/{path}")
    return archive.getvalue()


def _sources(plain: Path) -> Iterator[Path]:
    return (path.relative_to(plain) for path in sorted(plain.rglob("*.py")))


def _keep(plain: Path, image: ImageRef, version: str, said: bytes) -> None:
    """Copies of the sources with what the container said. Raises ValueError where that is not it."""
    found = dict(_parsed(line) for line in said.decode("ascii").splitlines())
    draft = Path(tempfile.mkdtemp(prefix=".new-", dir=plain.parent))
    draft.chmod(0o755)
    try:
        for path in _sources(plain):
            place = draft / path
            (place.parent / "__pycache__").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(plain / path, place)
            if runs_in_containers(path):
                name = f"{path.stem}.cpython-{version.replace('.', '')}.pyc"
                code = found[f"{TARGET}/{path.parent}/__pycache__/{name}"]
                (place.parent / "__pycache__" / name).write_bytes(code)
        draft.rename(_directory(plain, image, version))
    except KeyError as missing:
        raise ValueError(f"no bytecode for {missing}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _parsed(line: str) -> tuple[str, bytes]:
    path, _, code = line.partition(" ")
    try:
        return path, base64.b64decode(code, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{path[:100]}: {error}") from None
