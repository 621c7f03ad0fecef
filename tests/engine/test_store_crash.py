"""SIGKILL at every failpoint and at random instants, torn logs: nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest

from minimodal.engine import schema
from minimodal.engine.store import open_store
from minimodal.failpoints import NAMES
from minimodal.home import Home, open_home
from minimodal.types import Payload

WRITER = ("-m", "tests.engine.store_writer")
ROOT = Path(__file__).parents[2]

POINTS = [name for name in NAMES if name.startswith(("store.", "blobs.put."))]


def writer(own: Home, engine: str, *options: str, failpoints: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *WRITER, str(own.data.parent), engine, *options],
        env={**os.environ, "MINIMODAL_FAILPOINTS": failpoints},
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


async def check(own: Home, said: str) -> int:
    """Whether all that was acknowledged is there, once, and runs again or is finished. How many run."""
    accepted = set(re.findall(r"^accept (\S+)$", said, re.M))
    recorded = dict(re.findall(r"^record (\S+) (\S+)$", said, re.M))
    assert schema.check_file(own.database) == []
    async with open_store(own, f"en-after-{os.urandom(4).hex()}") as store:
        resumed = {}
        while taken := await store.recovery.take_over(lambda engine: engine == store.engine):
            for stored in taken:
                assert stored.call.id not in resumed
                assert bytes(stored.call.payload.data) == stored.call.id.encode()
                assert stored.losses <= 1
                resumed[stored.call.id] = stored
        for id in accepted:
            outcome = await store.outcome(id)
            if id in recorded:
                assert outcome
                assert isinstance(outcome.value, Payload)
                assert bytes(outcome.value.data) == recorded[id].encode()
                assert id not in resumed
            else:  # unknown: recorded just before the crash, or to be run again
                assert (outcome is None) == (id in resumed)
        assert len(await store.history.find(limit=10**6)) >= len(accepted)
        for id, stored in resumed.items():
            assert await store.attempt_started(id, stored.attempt + 1)
    return len(resumed)


@pytest.mark.parametrize("nth", [1, 7])
@pytest.mark.parametrize("point", POINTS)
def test_f29_killed_at_each_failpoint(own: Home, point: str, nth: int) -> None:
    child = writer(own, "en-1", "normal", "12", "4", failpoints=f"{point}=kill@{nth}")
    said, _ = child.communicate()
    if nth == 1:
        assert child.returncode == -signal.SIGKILL, f"{point} is never passed"
    anyio.run(check, own, said)


@pytest.mark.parametrize("seed", range(6))
def test_f28_killed_at_a_random_instant_again_and_again(own: Home, seed: int) -> None:
    chance, everything = random.Random(seed), ""
    for round in range(3):
        child = writer(own, f"en-{round}", "normal", "100000", "20")
        assert child.stdout
        everything += child.stdout.readline()
        time.sleep(chance.random() * 0.3)  # the fault: an instant that nobody chose
        child.kill()
        everything += child.stdout.read()
        child.stdout.close()
        child.wait()
    assert everything.count("\n") > 10
    anyio.run(check, own, everything)


def test_f38_two_writers_at_once_one_killed(own: Home) -> None:
    one = writer(own, "en-1", "normal", "100000", "10")
    two = writer(own, "en-2", "full", "40", "10")
    assert one.stdout
    said = one.stdout.readline()
    finished, _ = two.communicate()
    assert finished.endswith("done\n")
    one.kill()
    said += one.stdout.read()
    one.stdout.close()
    one.wait()
    anyio.run(check, own, said + finished)


def test_f48_a_torn_log_opens_at_the_last_whole_commit(own: Home, root: Path) -> None:
    said, _ = writer(own, "en-1", "leave", "40", "1").communicate()
    order = re.findall(r"^accept (\S+)$", said, re.M)
    log = Path(f"{own.database}-wal")
    size, chance = log.stat().st_size, random.Random(48)
    assert size > 10_000
    seen: set[int] = set()
    for number in range(25):
        copy = open_home(root / f"torn-{number}")
        shutil.copy(own.database, copy.database)
        shutil.copy(log, f"{copy.database}-wal")
        shutil.copytree(own.blobs, copy.blobs)
        os.truncate(f"{copy.database}-wal", chance.randrange(size) if number else 0)
        seen.add(anyio.run(consistent, copy, order))
        assert schema.check_file(copy.database) == []
    assert len(seen) > 5


async def consistent(own: Home, order: list[str]) -> int:
    async with open_store(own, "en-2") as store:
        found = [info.id for info in await store.history.find(limit=1000)][::-1]
        assert found == order[: len(found)]
        taken = await store.recovery.take_over(lambda engine: False)
        assert {stored.call.id for stored in taken} <= set(found)
        return len(found)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_f51_full_waits_for_the_disk_and_normal_does_not(own: Home, tmp_path: Path) -> None:
    def synced(durability: str, calls: int) -> int:
        trace = tmp_path / "trace"
        command = [
            sys.executable,
            *WRITER,
            str(own.data.parent),
            "en-1",
            durability,
            f"{calls}",
            "1",
        ]
        tracer = ["strace", "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync,write,pwrite64"]
        done = subprocess.run(
            [*tracer, *command], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if "ptrace" in done.stderr:
            pytest.skip("strace may not trace here")
        acknowledged, syncs, since = 0, 0, 0
        for line in trace.read_text().splitlines():
            since += "sync(" in line
            if '"accept ' in line:
                syncs += bool(since)
                acknowledged, since = acknowledged + 1, 0
        assert acknowledged == calls
        shutil.rmtree(own.data.parent)
        open_home(own.data.parent)
        return syncs

    # One call each: later ones of the writer sync their large payloads too.
    assert synced("full", 1) == 1
    assert synced("full", 5) == 5
    first = synced("normal", 1)  # making the file syncs
    assert synced("normal", 5) <= first + 1  # one of the five has a blob
