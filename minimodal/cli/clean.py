"""`minimodal clean`: free the disk of what can be made again, or of everything."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .failure import UsageError
from .group import confirm
from .listing import print_json, print_table, shown_bytes
from .parser import Parser, add_json, add_yes, load_settings

if TYPE_CHECKING:
    from minimodal.home import Home


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal clean",
        "Remove what can be made again: built layers, packages, copies of sources. With --all the\n"
        "records, volumes, secrets and settings too. Images in a Docker engine stay: see\n"
        "`minimodal image prune`. Refused while an engine runs in this home.",
        "minimodal clean --dry-run",
    )
    parser.add_argument("--all", action="store_true", help="everything of minimodal's, for good")
    parser.add_argument("--dry-run", action="store_true", help="only say what it would free")
    add_yes(parser)
    add_json(parser)
    options = parser.parse(arguments)
    from minimodal.home import locate_home

    home = locate_home(load_settings().home)
    parts = [(name, path, size_of(path)) for name, path in parts_of(home, options.all)]
    if not options.dry_run:
        _refuse_while_used(home)
        if not options.json:
            _print(parts)
        asked = "Remove all of minimodal's data?" if options.all else "Remove these?"
        if any(size for _, _, size in parts):
            confirm(asked, options.yes)
        for _, path, _ in parts:
            remove(path)
    if options.json:
        rows = [{"name": name, "path": str(path), "bytes": size} for name, path, size in parts]
        print_json("clean", {"removed": not options.dry_run, "items": rows})
    elif options.dry_run:
        _print(parts)
    else:
        freed = sum(size for _, _, size in parts)
        print(f"freed {shown_bytes(freed)}", file=sys.stderr)
    return 0


def parts_of(home: Home, everything: bool) -> list[tuple[str, Path]]:
    """The directories to remove, each with what it holds."""
    if everything:
        parts = [
            ("what can be made again", home.cache),
            ("volumes, deployments", home.data),
            ("records, logs", home.state),
            ("settings, keys", home.config),
            ("sockets", home.runtime),
        ]
    else:
        cache = sorted(home.cache.iterdir()) if home.cache.is_dir() else []
        parts = [(f"cache: {path.name}", path) for path in cache]
    return [(name, path) for name, path in parts if path.exists()]


def _print(parts: list[tuple[str, Path, int]]) -> None:
    rows = [(name, shown_bytes(size), path) for name, path, size in parts]
    print_table(("what", "size", "where"), rows, empty="nothing to remove")


def _refuse_while_used(home: Home) -> None:
    from minimodal.lookup import other_engines

    for info in other_engines(home):
        raise UsageError(
            f"an engine runs in this home: {info.role} (pid {info.pid}).",
            hint="stop it first",
            code=1,
        )


def size_of(path: Path) -> int:
    """Bytes on disk below `path`; a file with several names counts once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                status = os.lstat(os.path.join(folder, name))
            except OSError:
                continue  # it went away meanwhile
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                total += status.st_blocks * 512
    return total


def remove(path: Path) -> None:
    """Remove a file or a tree, with what an overlay made unreadable. Raises UsageError."""
    from minimodal.images.layer_store import remove_tree

    try:
        if path.is_dir() and not path.is_symlink():
            remove_tree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {error}.", code=1) from error
