"""Where built layers are kept: in the home (bubblewrap, process), or in a Docker engine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import to_thread

from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_requests import DockerFailure
from minimodal.backends.docker_spec import HOME_LABEL
from minimodal.errors import RuntimeUnavailable
from minimodal.home import Home

from . import in_use
from .layer_store import LayerStore
from .lifecycle import Shelf, StoredImage

EMBEDDED = ("bubblewrap", "process")
REPOSITORY = "minimodal/"  # of the images in a Docker engine; behind it comes the digest


@asynccontextmanager
async def open_shelves(
    home: Home, backend: str, docker_host: str | None, *, everyones: bool = False
) -> AsyncIterator[tuple[Shelf, ...]]:
    """The shelves of one backend; "auto": of all that are here, "embedded": those in the home.

    `everyones`: of a Docker engine, also what other homes have built there. Raises RuntimeUnavailable
    where Docker was asked for and no engine answers.
    """
    embedded: dict[str, tuple[str, ...]] = {"auto": EMBEDDED, "embedded": EMBEDDED}
    names = embedded.get(backend, (backend,) if backend in EMBEDDED else ())
    shelves: tuple[Shelf, ...] = (HomeShelf(home, names),) if names else ()
    if backend not in ("auto", "docker"):
        yield shelves
        return
    from minimodal.backends.docker_connect import open_first

    opening = open_first(docker_host)
    try:
        api = await opening.__aenter__()
    except RuntimeUnavailable:
        if backend == "docker":
            raise
        yield shelves
        return
    try:
        yield (*shelves, DockerShelf(api, home, everyones=everyones))
    finally:
        await opening.__aexit__(None, None, None)


class HomeShelf:
    """The layers and environments of a home."""

    def __init__(self, home: Home, backends: Sequence[str] = EMBEDDED) -> None:
        self._home = home
        self._backends = backends

    async def images(self) -> Sequence[StoredImage]:
        """Walks the files of all layers, for their sizes."""
        return await to_thread.run_sync(self._list)

    async def delete(self, image: StoredImage) -> bool:
        return image.backend in self._backends and await to_thread.run_sync(self._delete, image)

    def _list(self) -> list[StoredImage]:
        found = [*self._layers(), *self._environments()]
        return [image for image in found if image.backend in self._backends]

    def _delete(self, image: StoredImage) -> bool:
        home = self._home
        with in_use.unused(home, image.digest) as free:
            if not free:
                return False
            if image.backend == "bubblewrap":
                LayerStore(home).remove(image.digest)
            else:
                gone = Path(
                    tempfile.mkdtemp(prefix=f".draft-{os.getpid()}-", dir=home.environments)
                )
                os.rename(home.environments / image.digest, gone / "removed")
                shutil.rmtree(gone, ignore_errors=True)
            in_use.forget(home, image.digest)
            return True

    def _layers(self) -> Iterable[StoredImage]:
        for layer in LayerStore(self._home).all():
            step = str(layer.meta.get("step", ""))
            yield self._image("bubblewrap", layer.digest, layer.parent, layer.path, step)

    def _environments(self) -> Iterable[StoredImage]:
        for done in sorted(self._home.environments.glob("*/done")):
            step = done.read_text()
            yield self._image("process", done.parent.name, None, done.parent, step)

    def _image(
        self, backend: str, digest: str, parent: str | None, path: Path, step: str
    ) -> StoredImage:
        used = max(path.stat().st_mtime, in_use.last_use(self._home, digest))
        with in_use.unused(self._home, digest) as free:
            return StoredImage(backend, digest, parent, _size(path), used, not free, step)


class DockerShelf:
    """The images of a Docker engine that this home has built or used; `everyones`: of all homes."""

    def __init__(self, api: DockerApi, home: Home, *, everyones: bool = False) -> None:
        self._api = api
        self._home = home
        self._everyones = everyones
        self._needed: set[str | None] = set()  # layers that other homes' images are built upon

    async def images(self) -> Sequence[StoredImage]:
        known = {str(found["Id"]): found for found in await self._api.list_images()}
        digests = {id: digest for id, found in known.items() if (digest := _digest_of(found))}
        used = {str(each.get("ImageID")) for each in await self._api.list_containers(HOME_LABEL)}
        images: dict[str, StoredImage] = {}
        for id, digest in digests.items():
            parent = _parent_of(known, digests, id)
            own = known[id]["Size"] - (known[parent]["Size"] if parent in known else 0)
            step = str((known[id].get("Labels") or {}).get("minimodal.step", ""))
            last = max(in_use.last_use(self._home, docker_record(digest)), known[id]["Created"])
            below = digests.get(parent) if parent else None
            images[digest] = StoredImage(
                "docker", digest, below, max(own, 0), last, id in used, step
            )
        ours = set(self._ours(images))
        self._needed = {image.parent for digest, image in images.items() if digest not in ours}
        return [images[digest] for digest in ours]

    async def delete(self, image: StoredImage) -> bool:
        if image.backend != "docker" or image.digest in self._needed:
            return False
        try:
            await self._api.remove_image(f"{REPOSITORY}{image.digest}")
        except DockerFailure as error:
            if error.status == 409:  # a container has it, and says so also where the list did not
                return False
            raise
        in_use.forget(self._home, docker_record(image.digest))
        return True

    def _ours(self, images: dict[str, StoredImage]) -> Iterable[str]:
        """What this home has a record of, and what lies below it."""
        if self._everyones:
            return images
        ours: set[str] = set()
        for digest in images:
            if in_use.last_use(self._home, docker_record(digest)):
                below: str | None = digest
                while below in images and below not in ours:
                    ours.add(below)
                    below = images[below].parent
        return ours


def docker_record(digest: str) -> str:
    """The name in `in_use` under which the use of a Docker image is noted."""
    return f"docker-{digest}"


def _digest_of(found: dict[str, Any]) -> str | None:
    """Of a layer of ours; what somebody else has tagged too is theirs."""
    tags = found.get("RepoTags") or ()
    if not tags or not all(tag.startswith(REPOSITORY) for tag in tags):
        return None
    return str(tags[0]).removeprefix(REPOSITORY).partition(":")[0]


def _parent_of(known: dict[str, Any], digests: dict[str, str], id: str) -> str | None:
    """The nearest image below that is a layer of ours, or what the engine began with."""
    parent = str(known[id].get("ParentId") or "")
    while parent in known and parent not in digests and known[parent].get("ParentId"):
        parent = str(known[parent]["ParentId"])
    return parent or None


def _size(path: Path) -> int:
    total, seen = 0, set()
    for place, _, files in os.walk(path):
        for name in files:
            info = os.lstat(os.path.join(place, name))
            if info.st_nlink > 1:  # environments share files by hard links
                if (info.st_dev, info.st_ino) in seen:
                    continue
                seen.add((info.st_dev, info.st_ino))
            total += info.st_blocks * 512
    return total
