"""Listing, removing and pruning images; one in use is never removed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from minimodal.errors import BuildError, ConflictError, InvalidError, NotFoundError
from minimodal.home import Home, open_home
from minimodal.image import Image
from minimodal.images import lifecycle
from minimodal.images.in_use import hold, unused
from minimodal.images.layer_store import LayerStore
from minimodal.images.lifecycle import Pruned, StoredImage
from minimodal.images.process_builder import ProcessBuilder
from minimodal.images.shelves import HomeShelf

NOW = 1_000_000.0


@pytest.fixture
def state(scratch: Path) -> Iterator[Home]:
    directory = tempfile.mkdtemp(dir=scratch)
    yield open_home(directory)
    shutil.rmtree(directory)


def layer(home: Home, digest: str, parent: str | None, age: float, size: int = 8192) -> str:
    """A committed layer of that size, last used `age` seconds before NOW."""
    store = LayerStore(home)
    with store.draft() as draft:
        (draft.upper("data") / "x").write_bytes(os.urandom(size))
        store.commit(draft, digest, parent, {})
    os.utime(home.layers / digest, (NOW - age, NOW - age))
    return digest


def list_images(home: Home) -> tuple[StoredImage, ...]:
    return anyio.run(lifecycle.list_images, [HomeShelf(home)])


def inspect(home: Home, digest: str) -> tuple[StoredImage, ...]:
    return anyio.run(lifecycle.inspect, [HomeShelf(home)], digest)


def remove(home: Home, digest: str) -> Pruned:
    return anyio.run(lifecycle.remove, [HomeShelf(home)], digest)


def prune(home: Home, **options: Any) -> Pruned:
    return anyio.run(partial(lifecycle.prune, [HomeShelf(home)], **options))


def names(home: Home) -> list[str]:
    return sorted(image.digest for image in list_images(home))


def test_list_and_inspect(state: Home) -> None:
    layer(state, "aa", None, 50)
    layer(state, "ab", "aa", 10, size=1 << 20)
    one, other = list_images(state)
    assert (one.digest, one.is_top, one.in_use) == ("ab", True, False)
    assert one.size_bytes >= 1 << 20
    assert (other.digest, other.is_top) == ("aa", False)
    assert [image.digest for image in inspect(state, "ab")] == ["aa", "ab"]
    with pytest.raises(InvalidError, match="several"):
        inspect(state, "a")
    with pytest.raises(NotFoundError, match="image ls"):
        inspect(state, "zz")
    assert list_images(state) == list_images(state)


def test_remove_takes_what_no_other_image_needs(state: Home) -> None:
    layer(state, "a", None, 0)
    layer(state, "b", "a", 0)
    layer(state, "c", "b", 0)
    layer(state, "d", "a", 0)
    with pytest.raises(ConflictError, match="part of c"):
        remove(state, "b")
    done = remove(state, "c")
    assert sorted(done.removed) == ["b", "c"]
    assert done.freed_bytes >= 2 * 8192
    assert names(state) == ["a", "d"]


def test_prune_by_age_and_number(state: Home) -> None:
    layer(state, "base", None, 900)
    for age in (100, 200, 300):
        layer(state, f"i{age}", "base", age)
    assert prune(state, older_than=250, now=NOW).removed == ("i300",)
    assert prune(state, older_than=0, keep=1, now=NOW).removed == ("i200",)
    assert names(state) == ["base", "i100"]  # the base is old, but needed
    assert sorted(prune(state, now=NOW).removed) == ["base", "i100"]
    with pytest.raises(InvalidError):
        prune(state, keep=-1, now=NOW)


def test_an_image_in_use_is_never_removed(state: Home) -> None:
    layer(state, "base", None, 900)
    layer(state, "top", "base", 900)
    with hold(state, "top"):
        with hold(state, "top"):  # two containers
            assert prune(state, now=time.time()).removed == ()
        with pytest.raises(ConflictError, match="in use"):
            remove(state, "top")
        assert [i.in_use for i in list_images(state) if i.digest == "top"] == [True]
    assert names(state) == ["base", "top"]
    assert not prune(state, older_than=60, now=time.time()).removed  # it was just used
    assert len(prune(state, now=time.time() + 1).removed) == 2
    with unused(state, "top") as free:
        assert free
        container = hold(state, "top")
        with pytest.raises(BuildError, match="being removed"):
            container.__enter__()


def test_environments_of_the_process_backend(state: Home) -> None:
    async def main() -> str:
        builder = ProcessBuilder(state, os.environ)
        image = Image.debian_slim().run_commands("python -V")
        return (await builder.build(image.spec(state), lambda _: None)).name

    name = anyio.run(main)
    assert {image.backend for image in list_images(state)} == {"process"}
    with hold(state, name):
        assert (
            len(prune(state, now=time.time() + 1).removed) == 1
        )  # the base's; a clone stands alone
    assert remove(state, name[:12]).removed == (name,)
    assert names(state) == []
