"""Layers on disk: committed by one rename, found by one read, drafts of the dead swept."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from minimodal.errors import BuildError
from minimodal.home import Home, open_home
from minimodal.images.layer_store import LayerStore


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return open_home(tmp_path / "h")


def test_a_layer_is_found_with_its_parents_and_not_before_it_is_committed(home: Home) -> None:
    store = LayerStore(home)
    assert store.find("aa") is None
    with store.draft() as draft:
        (draft.upper("usr") / "x").write_text("1")
        (draft.work("usr") / "work").mkdir(mode=0o000)
        assert store.all() == ()
        lower = store.commit(draft, "aa", None, {"python": "/opt/venv/bin/python"})
    with store.draft() as draft:
        (draft.upper("opt") / "y").write_text("2")
        store.commit(draft, "bb", "aa", {})
    assert [layer.digest for layer in store.stack("bb")] == ["aa", "bb"]
    assert lower.top_directories() == ("usr",)
    assert (lower.files / "usr" / "x").read_text() == "1"
    assert lower.meta == {"python": "/opt/venv/bin/python"}
    assert {p.name for p in home.layers.iterdir()} == {"aa", "bb"}


def test_a_draft_that_is_not_committed_vanishes(home: Home) -> None:
    store = LayerStore(home)
    with store.draft() as draft:
        (draft.upper("usr") / "x").write_text("1")
    assert list(home.layers.iterdir()) == []


def test_the_second_commit_of_a_digest_keeps_the_first(home: Home) -> None:
    store = LayerStore(home)
    for text in ("first", "second"):
        with store.draft() as draft:
            (draft.upper("etc") / "x").write_text(text)
            layer = store.commit(draft, "aa", None, {})
    assert (layer.files / "etc" / "x").read_text() == "first"
    assert [p.name for p in home.layers.iterdir()] == ["aa"]


def test_a_missing_parent_is_named(home: Home) -> None:
    store = LayerStore(home)
    with store.draft() as draft:
        store.commit(draft, "bb", "aa", {})
    with pytest.raises(BuildError, match="layer aa of image bb is gone"):
        store.stack("bb")
    with pytest.raises(BuildError, match="not the digest"):
        store.find("../aa")


def test_removed_layers_and_dead_builders_drafts_go_and_living_ones_stay(home: Home) -> None:
    store = LayerStore(home)
    with store.draft() as draft:
        store.commit(draft, "aa", None, {})
    store.remove("aa")
    store.remove("aa")
    assert store.all() == ()
    code = (
        "import os, sys; from minimodal.home import open_home;"
        "from minimodal.images.layer_store import LayerStore;"
        "d = LayerStore(open_home(sys.argv[1])).draft(); d.__enter__(); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code, str(home.data.parent)], check=False)
    assert len(list(home.layers.iterdir())) == 1
    with store.draft() as draft:
        store.sweep()
        assert [p for p in home.layers.iterdir()] == [draft.path]


def test_a_sweep_takes_no_draft_of_the_living(home: Home) -> None:
    """Neither one that was just made nor one that is being committed."""
    store, stop = LayerStore(home), threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            store.sweep()

    with ThreadPoolExecutor(2) as pool:
        sweeps = [pool.submit(sweep) for _ in range(2)]
        try:
            for number in range(60):
                with store.draft() as draft:
                    (draft.upper("etc") / "x").touch()
                    store.commit(draft, f"a{number}", None, {})
                if number % 2:
                    store.remove(f"a{number}")
        finally:
            stop.set()
        assert [each.result() for each in sweeps] == [None, None]
    assert {layer.digest for layer in store.all()} == {f"a{n}" for n in range(0, 60, 2)}
