"""Puts the user's files where a build step needs them, and checks that they are what was digested."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from minimodal.layers import LocalFile
from minimodal.localfiles import copy_settled

from .build import StepFailed


def place(files: Iterable[LocalFile], root: Path) -> None:
    """Copy files and links to their targets below `root`. Raises StepFailed. Blocking.

    `root` may hold links of earlier layers: a target is never written through one.
    """
    for file in files:
        target = root / file.target.lstrip("/")
        _make_parents(root, target.parent)
        if target.is_symlink() or target.is_file():
            target.unlink()
        try:
            digest = _copy(file, target)
        except FileNotFoundError:
            raise StepFailed(f"the local file {file.source} is gone; it was there before") from None
        if digest != file.digest:
            raise StepFailed(
                f"the local file {file.source} changed while the image was being built; run it again"
            )


def _copy(file: LocalFile, target: Path) -> str:
    if stat.S_ISLNK(file.mode):
        text = os.readlink(file.source)
        target.symlink_to(text)
        return hashlib.sha256(os.fsencode(text)).hexdigest()
    digest, _ = copy_settled(Path(file.source), target)
    target.chmod(stat.S_IMODE(file.mode))
    return digest


def _make_parents(root: Path, directory: Path) -> None:
    place = root
    for part in directory.relative_to(root).parts:
        place /= part
        if place.is_symlink() or not place.is_dir():
            place.unlink(missing_ok=True)
            place.mkdir(mode=0o755)
