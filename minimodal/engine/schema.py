"""Opening the database file: is it ours, whole, and of a version that we know; migrations.

Owns schema.sql and what is refused. It never opens the file but through SQLite: closing a plain
descriptor of it would drop the POSIX locks of another engine in this process.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from minimodal.errors import StateError
from minimodal.failpoints import failpoint

from .trouble import damaged, is_locked

REMOTE_FILE_SYSTEMS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "fuse.sshfs")


def migrations() -> tuple[str, ...]:
    """The sections of schema.sql: the n-th one leads from version n to n + 1."""
    text = Path(__file__).with_name("schema.sql").read_text("utf-8")
    return tuple(re.split(r"^-- version \d+$", text, flags=re.M)[1:])


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time."""
    mode = "ro" if read_only else "rwc"
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def open_file(
    path: Path, wait: float, steps: Sequence[str], others: Sequence[str] = ()
) -> sqlite3.Connection:
    """Open for writing and bring to the newest version. Raises StateError or sqlite3.Error.

    `others` are live engines of this home, for people: no migration happens under their feet.
    """
    failpoint("store.open")
    kind = file_system(path, _mountinfo())
    if kind in REMOTE_FILE_SYSTEMS:
        raise StateError(
            f"{path} is on a network file system ({kind}), where SQLite's locks and shared memory do "
            "not work. Set MINIMODAL_HOME to a local directory."
        )
    opened: list[sqlite3.Connection] = []
    # As a whole: another engine that creates the file, or closes it last, locks any of its steps.
    patiently(lambda: opened.append(_open(path, steps, others)), wait)
    return opened[0]


def _open(path: Path, steps: Sequence[str], others: Sequence[str]) -> sqlite3.Connection:
    inspect(path, len(steps))
    connection = connect(path)
    try:
        connection.execute("PRAGMA user_version").fetchone()  # makes the file
        with contextlib.suppress(PermissionError):  # then it is another user's, who let us in
            os.chmod(path, 0o600)  # before the log is made, which takes over the mode
        connection.execute("PRAGMA journal_mode = WAL").fetchone()
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        _migrate(connection, path, steps, others)
    except BaseException:
        connection.close()
        raise
    return connection


def inspect(path: Path, newest: int) -> None:
    """Refuse a file that is damaged or of a newer version, leaving it as it is."""
    if not _size(path):
        return
    connection = connect(path, read_only=True)
    try:
        connection.execute("BEGIN")  # one snapshot: another engine may be creating the file
        version = _number(connection, "user_version")
        pages = _number(connection, "page_count")
        expected = pages * _number(connection, "page_size")
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        connection.close()
    if version > newest:
        raise StateError(
            f"{path} has schema version {version}; this minimodal knows versions up to {newest}. Use "
            "the newer minimodal that wrote it, or set MINIMODAL_HOME to another directory."
        )
    if version == 0 and tables:
        raise StateError(f"{path} is a database of something else: it has no schema version.")
    # With a log, a short file is one whose checkpoint was interrupted: SQLite repairs it. The log is
    # looked at first, because whoever removes it has made the file whole before.
    log, size = _size(Path(f"{path}-wal")), _size(path)
    if not log and size < expected:
        raise damaged(path, f"it has {size} bytes of {expected}")


def check_file(path: Path) -> list[str]:
    """Every damage that SQLite finds by reading the whole file: for `minimodal doctor`."""
    if not path.exists():
        return []
    try:
        connection = connect(path, read_only=True)
        try:
            found = [str(row[0]) for row in connection.execute("PRAGMA integrity_check")]
        finally:
            connection.close()
    except sqlite3.Error as error:
        return [str(error)]
    return [] if found == ["ok"] else found


def patiently(action: Callable[[], object], wait: float) -> None:
    """Call `action` until it is not refused by a lock; after `wait` seconds the refusal goes on.

    SQLite's own busy handler sleeps up to 100 ms between tries, and finds the short gap between
    two commits of a busy engine too rarely; it is not asked at all when the journal mode changes.
    """
    for left in reversed(range(max(1, round(wait * 1000)))):
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if not is_locked(error) or not left:
                raise
        time.sleep(0.001)


# --- migrations -----------------------------------------------------------------------------------


def _migrate(
    connection: sqlite3.Connection,
    path: Path,
    steps: Sequence[str],
    others: Sequence[str],
) -> None:
    version = _number(connection, "user_version")
    if version == len(steps):
        return
    if version:
        if others:
            raise StateError(
                f"{path} must go from schema version {version} to {len(steps)}, but other engines use "
                f"it: {', '.join(others)}. Stop them first."
            )
        _copy(connection, Path(f"{path}.v{version}"))
    failpoint("store.migrate.copied")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _number(connection, "user_version")  # another engine may have been faster
        for step in steps[version:]:
            for statement in _statements(step):
                connection.execute(statement)
            failpoint("store.migrate.step")
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    failpoint("store.migrate.done")


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """A whole copy, log included. By way of a temporary name: what has the final one is whole."""
    part = Path(f"{target}.{os.getpid()}.tmp")
    part.unlink(missing_ok=True)
    connection.execute("VACUUM INTO ?", (str(part),))
    os.chmod(part, 0o600)
    os.replace(part, target)


def _statements(script: str) -> list[str]:
    """Split at the ends of statements. (`executescript` would commit before it starts.)"""
    found, open_lines = [], ""
    for line in script.splitlines(keepends=True):
        open_lines += line
        if sqlite3.complete_statement(open_lines):
            found.append(open_lines)
            open_lines = ""
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])


# --- file systems ---------------------------------------------------------------------------------


def file_system(path: Path, mountinfo: str) -> str:
    """The type of the file system that holds `path`, from the text of /proc/self/mountinfo."""
    best, kind = "", ""
    directory = os.path.realpath(path.parent) + "/"
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ").rstrip("/") + "/"
        if directory.startswith(point) and len(point) >= len(best):
            best, kind = point, rest.split(" ")[0]
    return kind


def _mountinfo() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:  # not Linux: unknown, so allowed
        return ""
