"""The disk full, failing, locked, gone: nothing false is acknowledged, and the words help."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from minimodal.engine import schema
from minimodal.engine.store import Store, open_store
from minimodal.errors import StateError
from minimodal.failpoints import armed
from minimodal.home import Home, open_home
from minimodal.types import Call, CallState, Outcome, Payload

pytestmark = pytest.mark.anyio


def call(id: str, nbytes: int = 10) -> Call:
    return Call(id, "app/f", Payload(b"x" * nbytes), durable=True)


@pytest.fixture
def small_disk(root: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    point = root / "small"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(point)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small tmpfs")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def remount(point: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(point)], check=True)


async def test_f44_disk_full_then_room_again(small_disk: Path) -> None:
    own = open_home(small_disk / "h")
    async with open_store(own, "en-1", durability="full") as store:
        accepted: list[str] = []
        with pytest.raises(StateError) as caught:  # noqa: PT012
            for number in range(10_000):
                await store.accept([call(f"{number}", 3_000)])
                accepted.append(f"{number}")
        assert str(own.database) in str(caught.value)
        assert "bytes free" in str(caught.value)
        for _ in range(5):  # more than failures are tolerated: full is not failing
            with pytest.raises(StateError, match="full"):
                await store.accept([call("big", 200_000)])
        assert await store.outcome("0") is None
        with pytest.raises(StateError, match=rf"{own.blobs}.*full"):
            await store.accept([call("blob", 3_000_000)])
        remount(small_disk, "size=12m")
        await store.accept([call("later"), call("blob", 3_000_000)])
        assert await store.record("0", 0, Outcome(CallState.OK, Payload(b"v")))
    assert schema.check_file(own.database) == []
    async with open_store(own, "en-2") as store:
        found = {info.id for info in await store.history.find(limit=10_000)}
        assert found == {*accepted, "later", "blob"}
        assert list(own.blobs.glob("tmp/*")) == []


@pytest.mark.parametrize("point", ["store.commit.begin", "store.commit.written"])
async def test_f45_a_write_error_acknowledges_nothing_and_three_stop_the_engine(
    own: Home, point: str
) -> None:
    failed: list[str] = []

    async def accept(store: Store, id: str) -> None:
        try:
            await store.accept([call(id)])
        except StateError as error:
            failed.append(str(error))

    async with open_store(own, "en-1") as store:
        await store.accept([call("before")])
        with armed(f"{point}=raise:disk I/O error"):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(accept, store, f"{number}")
            assert len(failed) == 20
            assert all("disk I/O error" in text for text in failed)
        await store.accept([call("between")])
        with armed(f"{point}=raise:disk I/O error"):
            for number in range(3):
                await accept(store, f"{number}")
        with pytest.raises(StateError, match="disk I/O error"), anyio.fail_after(3):
            await store.watch()
        with pytest.raises(StateError, match="disk I/O error"):
            await store.accept([call("after")])
    async with open_store(own, "en-2") as store:
        assert {info.id for info in await store.history.find()} == {"before", "between"}


async def test_a_bug_in_the_writer_leaves_no_waiter_without_an_answer(own: Home) -> None:
    async with open_store(own, "en-1") as store:
        store.database._synchronous = None  # type: ignore[assignment,method-assign]  # the bug
        with pytest.raises(StateError, match="NoneType"):
            await store.accept([call("a")])
        with pytest.raises(StateError, match="NoneType"), anyio.fail_after(3):
            await store.watch()


LOCKER = """
import sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path: Path) -> Iterator[Callable[[], None]]:
    """Another program holds the database; the function that is given lets it go."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCKER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as locker:
        assert locker.stdout
        assert locker.stdin
        locker.stdout.readline()
        yield locker.stdin.close


async def test_f46_locked_by_another_program(own: Home) -> None:
    async with open_store(own, "en-1", wait=0.5) as store:
        with locked(own.database) as release:
            longest = 0.0

            async def tick() -> None:
                nonlocal longest
                while True:
                    start = time.perf_counter()
                    await anyio.sleep(0.005)
                    longest = max(longest, time.perf_counter() - start)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)
                for _ in range(4):  # for ever: an error each time, and the engine lives
                    with pytest.raises(StateError, match=rf"{own.database} is locked"):
                        await store.accept([call("a")])
                assert longest < 0.25  # the loop was never blocked
                tasks.start_soon(store.accept, [call("b")])
                await anyio.sleep(0.05)  # the fault: released while somebody waits
                release()
                with anyio.fail_after(5):
                    while not await store.history.find():
                        await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert [info.id for info in await store.history.find()] == ["b"]


@pytest.mark.parametrize("damage", ["removed", "replaced", "home removed"])
async def test_f50_f103_the_file_is_gone_or_another(
    own: Home, root: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minimodal.engine.database.CHECK_INTERVAL", 0.05)
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
        async with anyio.create_task_group() as tasks:
            raised: list[StateError] = []

            async def watch() -> None:
                try:
                    await store.watch()
                except StateError as error:
                    raised.append(error)

            tasks.start_soon(watch)
            await anyio.wait_all_tasks_blocked()
            if damage == "home removed":
                shutil.rmtree(root / "h")
            else:
                own.database.unlink()
            if damage == "replaced":
                own.database.write_bytes(b"an old copy")
            with anyio.fail_after(3):
                with pytest.raises(StateError, match=str(own.database)):
                    await store.accept([call("b")])
        assert str(own.database) in str(raised[0])
        with pytest.raises(StateError):
            await store.accept([call("c")])


async def test_f94_a_read_only_home_is_refused_with_its_path(small_disk: Path) -> None:
    own = open_home(small_disk / "h")
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])
    remount(small_disk, "ro")
    with pytest.raises(StateError, match=rf"{own.database} cannot be (written|opened)"):
        async with open_store(own, "en-2"):
            pass


async def test_f94_no_room_to_create_it(small_disk: Path) -> None:
    own = open_home(small_disk / "h")
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * 4096 - 8192))
    with pytest.raises(StateError, match=rf"{own.database} is full"):
        async with open_store(own, "en-1"):
            pass
    (small_disk / "filler").unlink()
    async with open_store(own, "en-1") as store:
        await store.accept([call("a")])


async def test_a_saturated_loop_does_not_starve_the_store(own: Home) -> None:
    async with open_store(own, "en-1") as store, anyio.create_task_group() as tasks:

        async def spin() -> None:
            while True:
                end = time.perf_counter() + 0.0005
                while time.perf_counter() < end:
                    pass
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(spin)
        with anyio.fail_after(10):
            for number in range(20):
                await store.accept([call(f"{number}")])
                assert await store.outcome(f"{number}") is None
        tasks.cancel_scope.cancel()


async def test_no_thread_and_no_descriptor_is_left(own: Home) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async with open_store(own, "en-0") as store:
        await store.history.find()
    before = descriptors()
    for number in range(5):
        async with open_store(own, f"en-{number}") as store:
            await store.accept([call(f"{number}")])
    assert descriptors() == before
    assert not [t for t in threading.enumerate() if t.name == "minimodal-store"]
