"""`minimodal volume`: the volumes of this home and their files. Works with and without an engine."""

from __future__ import annotations

import io
import os
import posixpath
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from minimodal.volume import Volume
from minimodal.volume_paths import FileEntryType, inside

from .failure import UsageError
from .group import (
    confirm,
    create_command,
    dispatch,
    list_command,
    parser_of,
    show_rows,
)
from .parser import add_json, add_yes
from .terminal import wants_motion

Moved = Callable[[int], None]


def main(arguments: list[str]) -> int:
    return dispatch("volume", COMMANDS, arguments)


def _ls(arguments: list[str]) -> int:
    parser = parser_of("volume", "ls", "List files.", "models -r")
    parser.add_argument("path", nargs="?", default="/")
    parser.add_argument("-r", "--recursive", action="store_true", help="also what is below")
    add_json(parser)
    options = parser.parse(arguments)
    entries = _named(options.name).listdir(options.path, recursive=options.recursive)
    rows = [
        {"path": e.path, "type": e.type.value, "modified": e.mtime, "size": e.size} for e in entries
    ]
    show_rows(rows, options.json, "it is empty")
    return 0


def _put(arguments: list[str]) -> int:
    about = "Copy a file or a directory of this machine into a volume, as one commit."
    parser = parser_of("volume", "put", about, "./model.bin /models/")
    parser.add_argument("local", help="a file, a directory, or - for stdin")
    parser.add_argument("remote", nargs="?", help="where to; by default the same name, at the top")
    parser.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    options = parser.parse(arguments)
    local = Path(options.local)
    if options.local == "-" and not options.remote:
        raise UsageError(
            "stdin has no name: say where to put it.", hint="minimodal volume put --help"
        )
    remote = options.remote or f"/{local.resolve().name}"
    upload = _named(options.name).batch_upload(force=options.force)
    with ExitStack() as stack, upload:  # the bar ends after the upload
        if options.local == "-":
            upload.put_file(io.BytesIO(sys.stdin.buffer.read()), remote)
        elif local.is_dir():
            upload.put_directory(local, remote)
        else:
            upload.put_file(local, remote)
        upload.sent = stack.enter_context(_bar(f"put {options.local}", upload.size))
    return 0


def _get(arguments: list[str]) -> int:
    about = "Copy a file or a directory of a volume to this machine."
    parser = parser_of("volume", "get", about, "models/model.bin .")
    parser.add_argument("remote")
    parser.add_argument("local", nargs="?", default=".", help="where to; - for stdout")
    parser.add_argument("-f", "--force", action="store_true", help="replace files that exist")
    options = parser.parse(arguments)
    volume, remote = _named(options.name), inside(options.remote)
    entries = volume.listdir(remote, recursive=True)
    single = len(entries) == 1 and entries[0].path == remote
    if options.local == "-":
        if not single:
            raise UsageError(f"{options.remote!r} is a directory: stdout takes one file.")
        for piece in volume.read_file(remote):
            sys.stdout.buffer.write(piece)
        return 0
    files = [entry for entry in entries if entry.type is FileEntryType.FILE]
    target = Path(options.local)
    if target.is_dir() and remote:
        target /= posixpath.basename(remote)
    with _bar(f"get {options.remote}", sum(entry.size for entry in files)) as moved:
        for entry in files:
            place = target if single else target / entry.path[len(remote) :].lstrip("/")
            _fetch(volume, entry.path, place, options.force, moved)
    return 0


def _fetch(volume: Volume, path: str, place: Path, force: bool, moved: Moved) -> None:
    """Whole or not at all: under another name first."""
    if place.exists() and not force:
        raise UsageError(f"{place} exists.", hint="--force replaces it", code=1)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name[:200]}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            for piece in volume.read_file(path):
                file.write(piece)
                moved(len(piece))
        os.replace(part, place)
    finally:
        part.unlink(missing_ok=True)


def _rm(arguments: list[str]) -> int:
    parser = parser_of("volume", "rm", "Remove a file.", "old -r")
    parser.add_argument("path")
    parser.add_argument("-r", "--recursive", action="store_true", help="a directory with its files")
    options = parser.parse(arguments)
    _named(options.name).remove_file(options.path, recursive=options.recursive)
    return 0


def _cp(arguments: list[str]) -> int:
    parser = parser_of("volume", "cp", "Copy within a volume.", "a b")
    parser.add_argument("paths", nargs="+", metavar="path", help="one source or more, and where to")
    parser.add_argument("-r", "--recursive", action="store_true", help="directories too")
    options = parser.parse(arguments)
    if len(options.paths) < 2:
        raise UsageError("a copy needs a source and a target.", hint="minimodal volume cp --help")
    *sources, target = options.paths
    _named(options.name).copy_files(sources, target, recursive=options.recursive)
    return 0


def _rename(arguments: list[str]) -> int:
    parser = parser_of("volume", "rename", "Give a volume another name.", "NEW_NAME")
    parser.add_argument("new_name")
    options = parser.parse(arguments)
    Volume.rename(options.name, options.new_name)
    return 0


def _delete(arguments: list[str]) -> int:
    parser = parser_of("volume", "delete", "Delete a volume and all its files.", "--yes")
    add_yes(parser)
    parser.add_argument("--force", action="store_true", help="also while a container uses it")
    options = parser.parse(arguments)
    count = len(_named(options.name).list_files())
    confirm(f"Delete the volume {options.name!r} with {count} files?", options.yes)
    Volume.delete(options.name, force=options.force)
    return 0


COMMANDS = {
    "list": (list_command("volume", Volume, "create NAME"), "list the volumes"),
    "create": (create_command("volume", Volume), "make an empty one"),
    "ls": (_ls, "list files"),
    "put": (_put, "copy files from this machine into it"),
    "get": (_get, "copy files to this machine"),
    "rm": (_rm, "remove files"),
    "cp": (_cp, "copy within it"),
    "rename": (_rename, "give it another name"),
    "delete": (_delete, "delete it with all its files"),
}


def _named(name: str) -> Volume:
    return Volume.from_name(name)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Moved]:
    """A progress bar on a terminal, nothing elsewhere."""
    if not wants_motion(sys.stderr) or total < 4 << 20:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.update(task, advance=count)
