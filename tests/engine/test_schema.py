"""Opening the file: every stored version upgrades, a newer or damaged one is left as it is."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from minimodal.engine import schema
from minimodal.engine.database import open_database
from minimodal.engine.store import open_store
from minimodal.engine_lock import hold_engine_lock
from minimodal.errors import StateError
from minimodal.home import Home
from minimodal.types import CallState, Failure, Outcome, Payload
from tests.engine.make_stored_database import DATA, SPEC

STORED = sorted(DATA.glob("schema-*.db"))
NEWER = (*schema.migrations(), "CREATE TABLE more (x);\nALTER TABLE calls ADD COLUMN more;\n")


def open_only(own: Home, engine: str = "en-1", wait: float = 1.0) -> None:
    async def opening() -> None:
        async with open_store(own, engine, wait=wait):
            pass

    anyio.run(opening)


def open_with(path: Path, steps: tuple[str, ...]) -> None:
    schema.open_file(path, 1.0, steps).close()


def version(path: Path) -> int:
    connection = sqlite3.connect(path)
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("stored", STORED, ids=lambda path: path.stem)
async def test_f49_every_stored_version_is_read(own: Home, stored: Path) -> None:
    shutil.copy(stored, own.database)
    async with open_store(own, "en-1") as store:
        taken = await store.recovery.take_over(lambda engine: False)
        assert [(s.call.id, s.call.payload.data, s.losses) for s in taken] == [
            ("queued", b"queued", 0),
            ("running", b"running", 1),
        ]
        assert await store.outcome("ok") == Outcome(CallState.OK, Payload(b"value"))
        failure = Failure("ValueError", "boom", "Traceback", Payload(b"pickle"))
        assert await store.outcome("error") == Outcome(CallState.ERROR, failure=failure)
        assert (await store.dead_letters.show("error")).input == Payload(b"error")
        assert (await store.deployments.current("shop")).version == 2
        assert await store.recovery.spec("shop/f") == SPEC
        assert await store.schedules.last("shop/f") == (60.0, None)


def test_there_is_a_stored_file_of_the_newest_version() -> None:
    assert f"schema-{len(schema.migrations())}" in {path.stem for path in STORED}


def test_f49_an_older_one_is_upgraded_with_a_copy_beside_it(own: Home) -> None:
    open_only(own)
    old = version(own.database)
    open_with(own.database, NEWER)
    assert version(own.database) == old + 1
    assert version(Path(f"{own.database}.v{old}")) == old
    assert schema.check_file(own.database) == []


def test_f49_a_newer_one_is_refused_untouched(own: Home) -> None:
    open_with(own.database, NEWER)
    before = own.database.read_bytes()
    with pytest.raises(StateError, match=rf"version {len(NEWER)}.*up to {len(NEWER) - 1}"):
        open_only(own)
    assert own.database.read_bytes() == before


@pytest.mark.parametrize("point", ["migrate.copied", "migrate.step", "migrate.done"])
@pytest.mark.parametrize("existing", [False, True])
def test_f49_killed_in_a_migration_is_old_or_new(own: Home, point: str, existing: bool) -> None:
    if existing:
        open_only(own)
    old = version(own.database) if existing else 0
    code = "import sys; from tests.engine.test_schema import *; open_with(Path(sys.argv[1]), NEWER)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(own.database)],
        env={**os.environ, "MINIMODAL_FAILPOINTS": f"store.{point}=kill"},
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert version(own.database) == (len(NEWER) if point == "migrate.done" else old)
    open_with(own.database, NEWER)
    assert version(own.database) == len(NEWER)
    assert schema.check_file(own.database) == []


def test_a_failing_migration_changes_nothing(own: Home) -> None:
    open_only(own)
    before = version(own.database)
    with pytest.raises(sqlite3.OperationalError):
        open_with(own.database, (*schema.migrations(), "CREATE TABLE t (x);\nNONSENSE;\n"))
    assert version(own.database) == before
    connection = sqlite3.connect(own.database)
    assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 't'").fetchall()
    connection.close()


def test_no_migration_under_the_feet_of_a_live_engine(own: Home) -> None:
    open_only(own)
    connection = sqlite3.connect(own.database)
    connection.execute("PRAGMA user_version = 0")  # as if it were old; but with tables
    connection.close()
    with pytest.raises(StateError, match="something else"):
        open_only(own)
    with hold_engine_lock(own, "en-up", role="up"):

        async def upgrading() -> None:
            async with open_database(own.database, steps=NEWER, others=["up (pid 5)"]):
                pass

        connection = sqlite3.connect(own.database)
        connection.execute(f"PRAGMA user_version = {len(NEWER) - 1}")
        connection.close()
        with pytest.raises(StateError, match=r"up \(pid 5\)\. Stop them first"):
            anyio.run(upgrading)


def header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def text(path: Path) -> None:
    path.write_text("hello " * 5000)


@pytest.mark.parametrize("damage", [header, half, text])
def test_f47_a_damaged_file_is_refused_and_left(own: Home, damage: Callable[[Path], None]) -> None:
    open_only(own)  # closing the last connection checkpoints: no log is left to hide the damage
    damage(own.database)
    before = own.database.read_bytes()
    with pytest.raises(StateError, match=rf"{own.database} is damaged.*minimodal doctor"):
        open_only(own)
    assert own.database.read_bytes() == before
    assert schema.check_file(own.database)


def test_a_damaged_page_in_the_middle_is_found_by_the_doctor(own: Home) -> None:
    open_only(own)
    with own.database.open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096))
    assert schema.check_file(own.database)


def test_what_is_not_a_file_or_not_ours_is_refused(own: Home) -> None:
    own.database.mkdir()
    with pytest.raises(StateError, match=str(own.database)):
        open_only(own)
    own.database.rmdir()
    connection = sqlite3.connect(own.database)
    connection.execute("CREATE TABLE photos (x)")
    connection.close()
    with pytest.raises(StateError, match="something else"):
        open_only(own)


def test_odd_paths(root: Path) -> None:
    for name in ("a b", "q?mode=ro", "h#x", "%41", "ü", "s%2fx"):
        path = root / name / "m.db"
        path.parent.mkdir()
        open_with(path, schema.migrations())
        assert path.exists()


@pytest.mark.parametrize("round", range(5))
def test_f38_many_open_a_fresh_home_at_once(own: Home, round: int) -> None:
    async def opening(number: int) -> None:
        async with open_store(own, f"en-{number}") as store:
            assert await store.history.find() == []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(8):
                tasks.start_soon(opening, number)

    anyio.run(main)
    assert schema.check_file(own.database) == []


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/ann/with\\040space rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/x/m.db", "ext4"),
        ("/home/ann/m.db", "nfs4"),
        ("/homework/m.db", "ext4"),
        ("/home/ann/with space/m.db", "tmpfs"),
    ],
)
def test_f103_the_file_system_of_a_path(path: str, kind: str) -> None:
    assert schema.file_system(Path(path), MOUNTS) == kind


def test_f103_a_home_on_nfs_is_refused(own: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "_mountinfo", lambda: "1 0 0:1 / / rw - nfs4 server:/ rw\n")
    with pytest.raises(StateError, match=r"network file system \(nfs4\)"):
        open_only(own)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_f103_another_users_file_names_the_owner(own: Home) -> None:
    open_only(own)
    for path in (own.database, own.state):
        os.chown(path, 12345, 12345)
    code = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "from minimodal.engine.trouble import in_words\nimport sqlite3\nfrom pathlib import Path\n"
        "print(in_words(sqlite3.OperationalError('unable to open database file'),"
        "Path(sys.argv[1]), 1.0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(own.state)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip("another user cannot read this checkout")
    assert "belongs to uid" in done.stdout
