"""What `minimodal image ls, inspect, rm, prune` do, for the images that lie in the home.

An image is a layer that nothing is built upon, or that containers were started with. One in use is
never removed; a layer goes only when no image needs it. Docker keeps its own images: see its builder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from minimodal.errors import ConflictError, InvalidError, NotFoundError
from minimodal.home import Home

from . import in_use
from .layer_store import LayerStore


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A built layer. `size_bytes` is its own, without what lies below it."""

    backend: str  # "bubblewrap" or "process"
    digest: str
    parent: str | None
    size_bytes: int
    last_used: float  # wall clock
    in_use: bool
    is_top: bool  # nothing is built upon it


@dataclass(frozen=True, slots=True)
class Pruned:
    removed: tuple[str, ...]
    freed_bytes: int


def list_images(home: Home) -> tuple[StoredImage, ...]:
    """All layers, the most recently used first. Walks their files: blocking."""
    found = [*_layers(home), *_environments(home)]
    parents = {image.parent for image in found}
    tops = [_with(image, image.digest not in parents) for image in found]
    return tuple(sorted(tops, key=lambda image: -image.last_used))


def inspect(home: Home, digest: str) -> tuple[StoredImage, ...]:
    """The layer that a digest, or the start of one, names, and all below it, lowest first."""
    images = {image.digest: image for image in list_images(home)}
    image: StoredImage | None = _named(images.values(), digest)
    chain: list[StoredImage] = []
    while image is not None:
        chain.append(image)
        image = images.get(image.parent) if image.parent else None
    return tuple(reversed(chain))


def remove(home: Home, digest: str) -> Pruned:
    """Remove an image, and the layers below it that no other needs.

    Raises NotFoundError; ConflictError if containers have it or another image is built upon it.
    """
    images = list_images(home)
    image = _named(images, digest)
    above = [other.digest for other in images if other.parent == image.digest]
    if above:
        raise ConflictError(
            f"layer {image.digest[:12]} is part of {', '.join(d[:12] for d in above)}; remove these first"
        )
    chain = {other.digest for other in inspect(home, image.digest)}
    done = _remove(home, images, chain, keep=())
    if image.digest not in done.removed:
        raise ConflictError(f"image {image.digest[:12]} is in use: a container runs with it")
    return done


def prune(home: Home, *, older_than: float = 0.0, keep: int = 0, now: float) -> Pruned:
    """Remove the images not used for `older_than` seconds, but never the `keep` last used ones."""
    if older_than < 0 or keep < 0:
        raise InvalidError("prune: older_than and keep are 0 or more")
    images = list_images(home)
    kept = {image.digest for image in [i for i in images if i.is_top][:keep]}
    old = {image.digest for image in images if now - image.last_used >= older_than}
    return _remove(home, images, old, kept)


def _remove(
    home: Home, images: Iterable[StoredImage], candidates: Collection[str], keep: Collection[str]
) -> Pruned:
    """From the top down, as long as nothing that stays is built upon a layer."""
    left = {image.digest: image for image in images}
    removed: list[str] = []
    freed = 0
    while True:
        needed = {image.parent for image in left.values()}
        going = [
            image
            for image in left.values()
            if image.digest in candidates
            and image.digest not in needed
            and image.digest not in keep
        ]
        if not going:
            return Pruned(tuple(removed), freed)
        for image in going:
            # Out of the candidates either way: what is in use holds what lies below it.
            if _delete(home, image):
                del left[image.digest]
                removed.append(image.digest)
                freed += image.size_bytes
            else:
                keep = {*keep, image.digest}


def _delete(home: Home, image: StoredImage) -> bool:
    with in_use.unused(home, image.digest) as free:
        if not free:
            return False
        if image.backend == "bubblewrap":
            LayerStore(home).remove(image.digest)
        else:
            gone = Path(tempfile.mkdtemp(prefix=f".draft-{os.getpid()}-", dir=home.environments))
            os.rename(home.environments / image.digest, gone / "removed")
            shutil.rmtree(gone, ignore_errors=True)
        in_use.forget(home, image.digest)
        return True


def _layers(home: Home) -> Iterable[StoredImage]:
    for layer in LayerStore(home).all():
        yield _image(home, "bubblewrap", layer.digest, layer.parent, layer.path)


def _environments(home: Home) -> Iterable[StoredImage]:
    for done in sorted(home.environments.glob("*/done")):
        yield _image(home, "process", done.parent.name, None, done.parent)


def _image(home: Home, backend: str, digest: str, parent: str | None, path: Path) -> StoredImage:
    used = max(path.stat().st_mtime, in_use.last_use(home, digest))
    with in_use.unused(home, digest) as free:
        return StoredImage(backend, digest, parent, _size(path), used, not free, is_top=False)


def _with(image: StoredImage, is_top: bool) -> StoredImage:
    return StoredImage(
        image.backend,
        image.digest,
        image.parent,
        image.size_bytes,
        image.last_used,
        image.in_use,
        is_top,
    )


def _named(images: Iterable[StoredImage], digest: str) -> StoredImage:
    found = [image for image in images if digest and image.digest.startswith(digest)]
    if not found:
        raise NotFoundError(
            f"there is no image {digest!r} in this home; `minimodal image ls` lists them"
        )
    if len({image.digest for image in found}) > 1:
        listing = ", ".join(image.digest[:16] for image in found)
        raise InvalidError(f"{digest!r} names several images: {listing}; give more of the digest")
    return found[0]


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
