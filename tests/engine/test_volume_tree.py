"""Trees of volumes: changes between two, their merge, listings; all pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimodal.engine.volume_tree import (
    EMPTY_DIRECTORY,
    Entry,
    File,
    Link,
    changes_between,
    copied,
    directories_of,
    dumped,
    listing,
    loaded,
    merged,
    removed,
)
from minimodal.errors import InvalidError
from minimodal.volume_paths import inside, stays_inside


def file(name: str) -> File:
    return File(name * 64, 1, 0)


A, B = file("a"), file("b")

names = st.sampled_from(["a", "b", "c"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
entries = st.sampled_from([A, B, Link("x"), EMPTY_DIRECTORY])
trees = st.dictionaries(paths, entries).map(lambda found: merged({}, found))


def is_sound(tree: dict[str, Entry]) -> bool:
    return not (set(tree) & directories_of(tree))


@given(trees, trees)
def test_the_changes_between_two_trees_lead_from_one_to_the_other(
    one: dict[str, Entry], other: dict[str, Entry]
) -> None:
    assert is_sound(one)
    assert merged(one, changes_between(one, other)) == other


@given(trees, trees, trees)
def test_a_merge_is_sound_and_keeps_the_later_commit_whole(
    before: dict[str, Entry], mine: dict[str, Entry], theirs: dict[str, Entry]
) -> None:
    result = merged(theirs, changes_between(before, mine))
    assert is_sound(result)
    for path, entry in mine.items():
        if before.get(path) != entry and entry != EMPTY_DIRECTORY:
            assert result[path] == entry


@given(trees)
def test_dumped_and_loaded(tree: dict[str, Entry]) -> None:
    assert loaded(dumped(tree)) == tree
    assert dumped(dict(reversed(tree.items()))) == dumped(tree)


def test_different_files_merge() -> None:
    base = {"d/x": A}
    mine, theirs = {"d/x": A, "d/mine": B}, {"d/x": B, "d/theirs": B}
    assert merged(theirs, changes_between(base, mine)) == {"d/x": B, "d/theirs": B, "d/mine": B}


def test_an_emptied_directory_stays_and_does_not_hide_what_others_put_there() -> None:
    changes = removed({"d/x": A}, "d/x", recursive=False)
    assert merged({"d/x": A}, changes) == {"d": EMPTY_DIRECTORY}
    assert merged({"d/x": A, "d/y": B}, changes) == {"d/y": B}


def test_listing() -> None:
    tree = {"a": A, "d/b": B, "d/e/f": A, "d/link": Link("b"), "empty": EMPTY_DIRECTORY}
    assert [row[:2] for row in listing(tree, "", False)] == [
        ("a", "file"),
        ("d", "directory"),
        ("empty", "directory"),
    ]
    assert [row[0] for row in listing(tree, "d", True)] == ["d/b", "d/e", "d/e/f", "d/link"]
    assert listing(tree, "empty", True) == []
    with pytest.raises(FileNotFoundError):
        listing(tree, "absent", True)


def test_a_directory_is_not_copied_into_itself() -> None:
    with pytest.raises(IsADirectoryError, match="itself"):
        copied({"d/x": A}, ["d"], "d", into=True, recursive=True)


@pytest.mark.parametrize("path", ["../x", "a/../../b", "..", "a\0", "n" * 256, "a/" * 3000, 3])
def test_paths_that_are_refused(path: object) -> None:
    with pytest.raises(InvalidError):
        inside(path)


def test_paths() -> None:
    assert [inside(path) for path in ("/", "", ".", "/a//b/", "./a")] == ["", "", "", "a/b", "a"]
    assert stays_inside("a/b", "../c")
    assert not stays_inside("a/b", "../../c")
    assert not stays_inside("a", "/c")
