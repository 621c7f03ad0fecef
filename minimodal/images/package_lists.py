"""Package lists that grew: a longer list is installed onto the layer of a shorter one.

Owns the notes of which list of packages became which layer. With one more package on a list of ten,
most of the work is there already: the versions that were chosen stay, and only what is new is fetched,
copied and compiled. `force_build=True` chooses all versions afresh.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import NamedTuple

from minimodal.layers import Layer, PipInstall, layer_digest

MAX_GROWTH = 8  # layers upon each other; then one is made from the start: stacks have their limits
MAX_NOTES = 20  # of lists that differ in their packages alone


class PackageList(NamedTuple):
    """What a layer installs. Lists with the same key differ in their entries alone."""

    key: str
    entries: frozenset[str]


class Installed(NamedTuple):
    """A layer that has a list; `growth` of its kind lie below it, upon the image's own parent."""

    digest: str
    entries: frozenset[str]
    growth: int


def package_list(parent: str, layer: Layer) -> PackageList | None:
    """The list of a layer, its requirement files included; None if it has none that can grow."""
    if not isinstance(layer, PipInstall) or layer.included:
        return None
    try:
        texts = [Path(file.source).read_text("utf-8-sig") for file in layer.requirements]
    except (OSError, UnicodeDecodeError):
        return None  # the step itself will say what is wrong with the file
    lines = "\n".join(texts).replace("\\\n", " ").splitlines()
    lines = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    options = " ".join(line for line in lines if line.startswith("-"))
    rest = layer._replace(
        packages=(), requirements=(), extra_options=f"{layer.extra_options}\n{options}"
    )
    entries = {*layer.packages, *(line for line in lines if not line.startswith("-"))}
    return PackageList(layer_digest(parent, rest), frozenset(entries))


class PackageLists:
    """The notes of one backend, in a directory of its own. Blocking, and quick."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def shorter(self, wanted: PackageList) -> list[Installed]:
        """Layers that have a part of the packages and may be built upon, the longest list first."""
        found = [note for note in self._notes(wanted.key) if note.entries < wanted.entries]
        found = [note for note in found if note.entries and note.growth < MAX_GROWTH]
        return sorted(found, key=lambda note: -len(note.entries))

    def note(self, made: PackageList, digest: str, growth: int) -> None:
        """Remember the layer that has this list."""
        directory = self._place / made.key
        directory.mkdir(parents=True, exist_ok=True)
        note = {"entries": sorted(made.entries), "growth": growth}
        (directory / digest).write_text(json.dumps(note))
        oldest_first = sorted(directory.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in oldest_first[:-MAX_NOTES]:
            path.unlink(missing_ok=True)

    def forget(self, list_: PackageList, digest: str) -> None:
        """Its layer is gone."""
        (self._place / list_.key / digest).unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all: a layer was replaced, and what is noted may lie upon the one before."""
        shutil.rmtree(self._place, ignore_errors=True)

    def _notes(self, key: str) -> list[Installed]:
        found = []
        for path in (self._place / key).glob("*"):
            try:
                note = json.loads(path.read_text())
                found.append(Installed(path.name, frozenset(note["entries"]), note["growth"]))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half written, or being removed: it only saves time
        return found
