"""A view: one container's own working copy of a volume, and how what was written there is committed.

Files are clones of the stored objects where the file system can clone, copies where it cannot, and
further names of the objects themselves where the container cannot write. The container may write
while we look: it is reached through `Beneath` alone, and what changes under our eyes is looked at
again later. All methods block.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from minimodal.errors import VolumeError
from minimodal.failpoints import failpoint
from minimodal.volume_paths import stays_inside

from .beneath import Beneath
from .volume_content import wrapped
from .volume_store import VolumeStore
from .volume_tree import (
    EMPTY_DIRECTORY,
    Directory,
    Entry,
    File,
    Link,
    at,
    changes_between,
    directories_of,
    part_of,
)

Fingerprint = tuple[int, int, int, int]
AT_ONCE = 4  # files that one commit reads at a time
ATTEMPTS = 3  # to read a file that is being written


class View:
    """Made by `make_view`. `files` is what the container mounts."""

    def __init__(
        self,
        store: VolumeStore,
        directory: Path,
        prefix: str,
        target: str,
        read_only: bool,
        owner: int | None = None,
    ) -> None:
        self.store = store
        self.directory = directory
        self.files = directory / "files"
        self.target = target
        self.read_only = read_only
        self.prefix = prefix
        self._staging = directory / "staging"
        self._lock = threading.Lock()
        self._tree: dict[str, Entry] = {}  # what is in the view, as far as we know
        self._owner = owner
        self._seen: dict[str, Fingerprint] = {}
        self._as_filled: dict[str, Fingerprint] = {}  # all that is in it, directories too
        self._staged = 0

    def fill(self) -> None:
        """Bring the committed state into the empty view."""
        if isinstance(self.store.tree().get(self.prefix), (File, Link)):
            raise VolumeError(f"sub_path {self.prefix!r} is no directory in the volume")
        with wrapped(self.directory, f"a view of volume {self.store.id}"), self.store.storing():
            self._staging.mkdir(parents=True, mode=0o700)
            self.files.mkdir(mode=0o755)
            os.chmod(self.files, 0o755)  # whatever the umask
            if self._owner is not None:  # then all that is put there becomes that user's too
                os.chown(self.files, self._owner, self._owner)
            self._bring(part_of(self.store.tree(), self.prefix))
            failpoint("volume.view.made")
        self._as_filled = self._looks()

    @property
    def has_files(self) -> bool:
        return bool(self._tree)

    def is_untouched(self) -> bool:
        """Whether it is what it was when it was filled, in each byte, mode and attribute."""
        with self._lock:
            return self._looks() == self._as_filled

    def renew(self, directory: Path, target: str) -> None:
        """Let another container have an untouched view: in a new place, with what is committed now."""
        what = f"a view of volume {self.store.id}"
        with self._lock, self.store.storing(), wrapped(directory, what):
            os.rename(self.directory, directory)
            self.directory, self.target = directory, target
            self.files, self._staging = directory / "files", directory / "staging"
            self._bring(part_of(self.store.tree(), self.prefix))
            self._as_filled = self._looks()

    def _looks(self) -> dict[str, Fingerprint]:
        beneath = Beneath(self.files)
        try:
            found = {path: _fingerprint(status) for path, status in _walked(beneath, self._what)}
            return {**found, "": _fingerprint(os.stat(self.files))}
        finally:
            beneath.close()

    def commit(self, *, lenient: bool) -> list[str]:
        """Commit what the container changed. Returns what was left out, and why.

        `lenient`: leave out what a volume cannot hold, and files that are being written. Else that
        raises VolumeError, and nothing is committed.
        """
        if self.read_only:
            return []
        self.store.require()
        with self._lock, self.store.storing():
            tree, seen, problems = self._scan(lenient)
            if problems and not lenient:
                raise VolumeError(f"nothing was committed: {problems[0]}")
            changes = changes_between(self._tree, tree)
            if changes:
                placed = {at(self.prefix, path): entry for path, entry in changes.items()}
                self.store.apply(lambda _: placed)
            self._tree, self._seen = tree, seen  # not before: what failed is to be tried again
            return problems

    def reload(self) -> None:
        """Commit what is here, then bring in what others have committed."""
        self.commit(lenient=True)
        what = f"a view of volume {self.store.id}"
        with self._lock, self.store.storing(), wrapped(self.directory, what):
            self._bring(part_of(self.store.tree(), self.prefix))

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- from the store to the view ----------------------------------------------------------------

    def _bring(self, tree: dict[str, Entry]) -> None:
        changes = changes_between(self._tree, tree)
        beneath = Beneath(self.files)
        try:
            for path in sorted((p for p, e in changes.items() if e is None), reverse=True):
                beneath.remove(path)
                self._seen.pop(path, None)
            for path, entry in changes.items():
                failpoint("volume.view.reloading")
                if entry is not None:
                    self._put(beneath, path, entry)
            kept = directories_of(tree) | set(tree)
            for path in sorted(directories_of(self._tree) - kept, reverse=True):
                beneath.remove(path)
        finally:
            beneath.close()
        self._tree = dict(tree)

    def _put(self, beneath: Beneath, path: str, entry: Entry) -> None:
        if isinstance(entry, Directory):
            beneath.make_directory(path)
            return
        self._staged += 1
        staged = self._staging / str(self._staged)
        try:
            if isinstance(entry, Link):
                os.symlink(entry.target, staged)
            elif self.read_only and not entry.executable:
                self._link(staged, path, entry)
            else:
                self._copy(staged, path, entry)
            beneath.put(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        if isinstance(entry, File):
            self._seen[path] = _fingerprint(beneath.status(path))

    def _link(self, staged: Path, path: str, entry: File) -> None:
        directory = os.open(self._staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.store.contents.link_to(entry.digest, directory, staged.name, self._what(path))
        except OSError:  # too many names of one file
            self._copy(staged, path, entry)
        finally:
            os.close(directory)

    def _copy(self, staged: Path, path: str, entry: File) -> None:
        fd = os.open(staged, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self.store.contents.copy_to(entry.digest, fd, self._what(path))
            os.fchmod(fd, 0o755 if entry.executable else 0o644)
            os.utime(fd, ns=(entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    # --- from the view to the store ----------------------------------------------------------------

    def _scan(self, lenient: bool) -> tuple[dict[str, Entry], dict[str, Fingerprint], list[str]]:
        """What is in the view, with all contents kept; how its files look; what was left out."""
        tree: dict[str, Entry] = {}
        problems: list[str] = []
        names: Counter[tuple[int, int]] = Counter()
        linked: dict[str, os.stat_result] = {}
        directories: list[str] = []
        changed: list[str] = []
        beneath = Beneath(self.files)
        try:
            for path, status in _walked(beneath, self._what):
                if stat.S_ISDIR(status.st_mode):
                    directories.append(path)
                elif stat.S_ISLNK(status.st_mode):
                    target = beneath.link_target(path)
                    if stays_inside(path, target):
                        tree[path] = Link(target)
                    else:
                        problems.append(
                            f"{self._what(path)} is a link out of the volume, to {target}"
                        )
                elif stat.S_ISREG(status.st_mode):
                    names[status.st_dev, status.st_ino] += 1
                    if status.st_nlink > 1:
                        linked[path] = status
                    known = self._known(path, status)
                    if known is None:
                        changed.append(path)
                    else:
                        tree[path] = known
                else:
                    problems.append(
                        f"{self._what(path)} is a {_kind(status)}, which no volume holds"
                    )
            for path, status in linked.items():
                if names[status.st_dev, status.st_ino] < status.st_nlink:
                    problems.append(
                        f"{self._what(path)} is a hard link to a file outside the volume"
                    )
                    tree.pop(path, None)
                elif path in changed:
                    continue
                changed = [other for other in changed if other != path]
            seen = {path: self._seen[path] for path in tree if path in self._seen}
            for path, entry, fingerprint in self._stored_all(beneath, changed, lenient):
                tree[path] = entry
                if fingerprint is not None:
                    seen[path] = fingerprint
        finally:
            beneath.close()
        implied = directories_of(tree)
        tree.update((path, EMPTY_DIRECTORY) for path in directories if path not in implied)
        return tree, seen, problems

    def _known(self, path: str, status: os.stat_result) -> Entry | None:
        if self._seen.get(path) != _fingerprint(status):
            return None
        entry = self._tree.get(path)
        return entry if isinstance(entry, File) else None

    def _stored_all(
        self, beneath: Beneath, paths: list[str], lenient: bool
    ) -> list[tuple[str, Entry, Fingerprint | None]]:
        """Several at a time: each waits for the disk, and hashing needs no interpreter."""
        if not paths:
            return []
        with ThreadPoolExecutor(min(AT_ONCE, len(paths)), "minimodal-commit") as threads:
            found = threads.map(lambda path: self._stored(beneath, path, lenient), paths)
            return [
                (path, entry, fingerprint)
                for path, (entry, fingerprint) in zip(paths, found, strict=True)
                if entry is not None
            ]

    def _stored(
        self, beneath: Beneath, path: str, lenient: bool
    ) -> tuple[Entry | None, Fingerprint | None]:
        """The entry of a changed file, whose content is kept, and how it looks at rest.

        None where it is a file no more; as it was, without a look, while it is being written.
        """
        earlier = self._tree.get(path)
        for _ in range(ATTEMPTS):
            with beneath.opened(path) as found:
                if found is None:
                    return None, None
                fd, before = found
                digest, size = self.store.contents.put(fd, self._what(path))
                after = os.fstat(fd)
            if _fingerprint(before) == _fingerprint(after) and size == after.st_size:
                break
            if lenient:  # it is being written: as it was, until it rests
                return (earlier if isinstance(earlier, File) else None), None
        entry = File(digest, size, after.st_mtime_ns, bool(after.st_mode & 0o100))
        return (earlier if earlier == entry else entry), _fingerprint(after)

    def _what(self, path: str) -> str:
        return f"{self.target}/{path}"


def make_view(
    store: VolumeStore,
    directory: Path,
    prefix: str,
    target: str,
    read_only: bool,
    owner: int | None = None,
) -> View:
    """A filled view in a new directory; removed again where that fails.

    `owner`: the uid that may write there, where that is not ours. What is only read stays ours: its
    files are the stored objects themselves.
    """
    view = View(store, directory, prefix, target, read_only, None if read_only else owner)
    try:
        view.fill()
    except BaseException:
        view.remove()
        raise
    return view


def _walked(beneath: Beneath, what: Callable[[str], str]) -> Iterator[tuple[str, os.stat_result]]:
    try:
        yield from beneath.walk()
    except OSError as error:
        name = what(str(error.filename)) if error.filename else "the volume"
        raise VolumeError(f"{name} cannot be read: {error.strerror}") from error


def _fingerprint(status: os.stat_result) -> Fingerprint:
    """The change time cannot be set by the container, so a rewritten file never looks like before."""
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _kind(status: os.stat_result) -> str:
    names = {
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "character device",
        stat.S_IFBLK: "block device",
    }
    return names.get(stat.S_IFMT(status.st_mode), "special file")
