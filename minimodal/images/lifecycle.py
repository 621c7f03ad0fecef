"""What `minimodal image ls, inspect, rm, prune` do, wherever the images are kept.

An image is a layer that nothing is built upon. One that containers have is never removed, and a layer
goes only when no image needs it. Where layers are and how one is deleted, a `Shelf` knows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple, Protocol

from minimodal.errors import ConflictError, InvalidError, NotFoundError


class StoredImage(NamedTuple):
    """A built layer. `size_bytes` is its own, without what lies below it."""

    backend: str  # "docker", "bubblewrap" or "process"
    digest: str
    parent: str | None
    size_bytes: int
    last_used: float  # wall clock: when a container last began with it, or when it was built
    in_use: bool
    step: str = ""  # what made it, in words
    is_top: bool = False  # nothing is built upon it


class Pruned(NamedTuple):
    removed: tuple[str, ...]
    freed_bytes: int


class Shelf(Protocol):
    """Where one or two backends keep their layers."""

    async def images(self) -> Sequence[StoredImage]: ...

    async def delete(self, image: StoredImage) -> bool:
        """Remove a layer that nothing is built upon; False if it is in use."""
        ...


Shelves = Sequence[Shelf]


async def list_images(shelves: Shelves) -> tuple[StoredImage, ...]:
    """All layers, the most recently used first."""
    found = [image for shelf in shelves for image in await shelf.images()]
    parents = {(image.backend, image.parent) for image in found}
    tops = [i._replace(is_top=(i.backend, i.digest) not in parents) for i in found]
    return tuple(sorted(tops, key=lambda image: -image.last_used))


async def inspect(shelves: Shelves, digest: str) -> tuple[StoredImage, ...]:
    """The layer that a digest, or the start of one, names, and all below it, lowest first."""
    images = await list_images(shelves)
    return chain_of(images, _named(images, digest))


def chain_of(images: Iterable[StoredImage], top: StoredImage) -> tuple[StoredImage, ...]:
    """A layer and all below it, lowest first."""
    known = {image.digest: image for image in images if image.backend == top.backend}
    chain, image = [], known.get(top.digest)
    while image is not None:
        chain.append(image)
        image = known.get(image.parent) if image.parent else None
    return tuple(reversed(chain))


async def remove(shelves: Shelves, digest: str) -> Pruned:
    """Remove an image, and the layers below it that no other needs.

    Raises NotFoundError; ConflictError if containers have it or another image is built upon it.
    """
    images = await list_images(shelves)
    image = _named(images, digest)
    above = [i.digest for i in images if (i.backend, i.parent) == (image.backend, image.digest)]
    if above:
        named = ", ".join(each[:12] for each in above)
        raise ConflictError(
            f"layer {image.digest[:12]} is part of {named}; `minimodal image rm` these first"
        )
    mine = [i for i in images if i.backend == image.backend]
    chain = {other.digest for other in chain_of(images, image)}
    done = await _remove(shelves, mine, chain, keep=())
    if image.digest not in done.removed:
        raise ConflictError(f"image {image.digest[:12]} is in use: a container runs with it")
    return done


def prunable(
    images: Sequence[StoredImage], *, older_than: float = 0.0, keep: int = 0, now: float
) -> tuple[set[str], set[str]]:
    """(candidates, kept): what `prune` would try to remove, and what it keeps in any case."""
    if older_than < 0 or keep < 0:
        raise InvalidError("prune: older_than and keep are 0 or more")
    kept = {image.digest for image in [i for i in images if i.is_top][:keep]}
    return {image.digest for image in images if now - image.last_used >= older_than}, kept


async def prune(shelves: Shelves, *, older_than: float = 0.0, keep: int = 0, now: float) -> Pruned:
    """Remove the images not used for `older_than` seconds, but never the `keep` last used ones."""
    images = await list_images(shelves)
    candidates, kept = prunable(images, older_than=older_than, keep=keep, now=now)
    return await _remove(shelves, images, candidates, kept)


async def _remove(
    shelves: Shelves,
    images: Iterable[StoredImage],
    candidates: Collection[str],
    keep: Collection[str],
) -> Pruned:
    """From the top down, as long as nothing that stays is built upon a layer."""
    left = {(image.backend, image.digest): image for image in images}
    removed: list[str] = []
    freed = 0
    held: set[tuple[str, str]] = set()
    while True:
        needed = {(image.backend, image.parent) for image in left.values()}
        going = [
            (key, image)
            for key, image in left.items()
            if image.digest in candidates
            and key not in needed
            and key not in held
            and image.digest not in keep
        ]
        if not going:
            return Pruned(tuple(removed), freed)
        for key, image in going:
            # What is in use stays, and holds what lies below it.
            if await _delete(shelves, image):
                del left[key]
                removed.append(image.digest)
                freed += image.size_bytes
            else:
                held.add(key)


async def _delete(shelves: Shelves, image: StoredImage) -> bool:
    for shelf in shelves:
        if await shelf.delete(image):
            return True
    return False


def _named(images: Iterable[StoredImage], digest: str) -> StoredImage:
    found = [image for image in images if digest and image.digest.startswith(digest)]
    if not found:
        raise NotFoundError(f"there is no image {digest!r} here; `minimodal image ls` lists them")
    if len(found) > 1:
        listing = ", ".join(f"{image.digest[:16]} ({image.backend})" for image in found)
        raise InvalidError(
            f"{digest!r} names several images: {listing}; give more of the digest, or --backend"
        )
    return found[0]
