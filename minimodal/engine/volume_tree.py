"""What a volume holds at one time: a path → entry mapping, changes between two, and their merge. Pure.

Directories that hold something are implied by it; an empty one is an entry of its own. Paths are
relative, as `volume_paths.inside` gives them; names that are no UTF-8 carry Python's surrogates.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class File(NamedTuple):
    digest: str
    size: int
    mtime: int  # ns since 1970
    executable: bool = False


class Link(NamedTuple):
    target: str


@dataclass(frozen=True, slots=True)
class Directory:
    """An empty one."""


Entry = File | Link | Directory
Tree = Mapping[str, Entry]
Changes = Mapping[str, "Entry | None"]  # None: removed

EMPTY_DIRECTORY = Directory()


def changes_between(before: Tree, after: Tree) -> dict[str, Entry | None]:
    found: dict[str, Entry | None] = {
        path: entry for path, entry in after.items() if before.get(path) != entry
    }
    found.update((path, None) for path in before if path not in after)
    return found


def merged(tree: Tree, changes: Changes) -> dict[str, Entry]:
    """`tree` with the changes: they win over what is in their way, and touch nothing else."""
    result = dict(tree)
    for path, entry in changes.items():
        if entry is None:
            result.pop(path, None)
    directories = directories_of(result)
    for path, entry in changes.items():
        if entry is None or (isinstance(entry, Directory) and path in directories):
            continue
        if path in directories:
            for other in [other for other in result if is_below(other, path)]:
                del result[other]
            directories = directories_of(result)
        for above in parents_of(path):
            result.pop(above, None)
            directories.add(above)
        result[path] = entry
    return result


def directories_of(paths: Iterable[str]) -> set[str]:
    """All directories that are implied by paths below them; "" is the root."""
    found = {""}
    for path in paths:
        for above in parents_of(path):
            if above in found:
                break
            found.add(above)
    return found


def parents_of(path: str) -> Iterator[str]:
    """The directories above, nearest first, without the root."""
    above = posixpath.dirname(path)
    while above:
        yield above
        above = posixpath.dirname(above)


def is_below(path: str, directory: str) -> bool:
    return not directory or path.startswith(directory + "/")


def part_of(tree: Tree, prefix: str) -> dict[str, Entry]:
    """What is below `prefix`, with paths from there."""
    if not prefix:
        return dict(tree)
    start = len(prefix) + 1
    return {path[start:]: entry for path, entry in tree.items() if is_below(path, prefix)}


def at(prefix: str, path: str) -> str:
    return f"{prefix}/{path}" if prefix else path


Row = tuple[str, str, float, int]  # path, kind, mtime, size


def listing(tree: Tree, path: str, recursive: bool) -> list[Row]:
    """The rows of a directory, or the row of one file. Raises FileNotFoundError."""
    entry = tree.get(path)
    if isinstance(entry, (File, Link)):
        return [_row(path, entry)]
    if path and entry is None and path not in directories_of(tree):
        raise FileNotFoundError(f"there is no {path!r} in the volume")
    below = {other: found for other, found in tree.items() if is_below(other, path)}
    rows = {other: _row(other, found) for other, found in below.items()}
    for directory in directories_of(below):
        if directory and directory != path and is_below(directory, path):
            rows[directory] = _row(directory, EMPTY_DIRECTORY)
    if not recursive:
        depth = path.count("/") + 1 if path else 0
        rows = {other: row for other, row in rows.items() if other.count("/") == depth}
    return [rows[other] for other in sorted(rows)]


def _row(path: str, entry: Entry) -> Row:
    match entry:
        case File():
            return path, "file", entry.mtime / 1e9, entry.size
        case Link():
            return path, "symlink", 0.0, len(entry.target)
        case Directory():
            return path, "directory", 0.0, 0


def removed(tree: Tree, path: str, recursive: bool) -> dict[str, Entry | None]:
    """The changes that remove a file or directory. Its parent stays, as an empty directory."""
    entry = tree.get(path)
    below = [other for other in tree if is_below(other, path)] if path else list(tree)
    if entry is None and not below and path:
        raise FileNotFoundError(f"there is no {path!r} in the volume")
    if not isinstance(entry, (File, Link)) and not recursive:
        raise IsADirectoryError(f"{path or '/'!r} is a directory: remove it with recursive=True")
    changes: dict[str, Entry | None] = dict.fromkeys([path, *below] if path else below)
    parent = posixpath.dirname(path)
    if parent:
        changes[parent] = EMPTY_DIRECTORY
    return changes


def copied(
    tree: Tree, sources: list[str], target: str, *, into: bool, recursive: bool
) -> dict[str, Entry | None]:
    """The changes that copy within the volume, as `cp` does."""
    directories = directories_of(tree) | {p for p, e in tree.items() if isinstance(e, Directory)}
    is_directory = target in directories
    if not is_directory and (len(sources) > 1 or (into and target in tree)):
        raise NotADirectoryError(f"{target!r} is no directory in the volume")
    changes: dict[str, Entry | None] = {}
    for source in sources:
        entry = tree.get(source)
        goal = at(target, posixpath.basename(source)) if is_directory or into else target
        if isinstance(entry, (File, Link)):
            changes[goal] = entry
            continue
        if source not in directories:
            raise FileNotFoundError(f"there is no {source!r} in the volume")
        if not recursive:
            raise IsADirectoryError(f"{source!r} is a directory: copy it with recursive=True")
        if is_below(goal, source) or goal == source:
            raise IsADirectoryError(f"{source!r} cannot be copied into itself")
        found = part_of(tree, source)
        changes |= {at(goal, path): each for path, each in found.items()}
        if not found:
            changes[goal] = EMPTY_DIRECTORY
    return changes


def dumped(tree: Tree) -> bytes:
    """Equal trees give equal bytes."""
    return json.dumps({path: _plain(tree[path]) for path in sorted(tree)}).encode()


def loaded(text: bytes) -> dict[str, Entry]:
    return {path: _entry(plain) for path, plain in json.loads(text).items()}


def _plain(entry: Entry) -> list[object]:
    match entry:
        case File():
            return ["f", entry.digest, entry.size, entry.mtime, entry.executable]
        case Link():
            return ["l", entry.target]
        case Directory():
            return ["d"]


def _entry(plain: list[object]) -> Entry:
    match plain:
        case ["f", str(digest), int(size), int(mtime), bool(executable)]:
            return File(digest, size, mtime, executable)
        case ["l", str(target)]:
            return Link(target)
        case ["d"]:
            return EMPTY_DIRECTORY
    raise ValueError(f"{plain!r} is no entry of a volume")
