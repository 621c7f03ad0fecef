"""Mixed load with random kills, and what is left of it: `python tests/benchmarks/soak.py --minutes 30`.

Hosts a deployed app with `minimodal up` in a home of its own, spawns, calls and maps from threads of
this process, and every few seconds kills an executor, a container's first process, or the engine, which
is started again. In the last third no engine is killed, so that its own growth is seen. Exit code 1
where a call is lost, an outcome changed, or something grew.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import minimodal
import minimodal.host
from minimodal.errors import NotRunningError

app = minimodal.App("soak")


@app.function(max_containers=2, retries=3, timeout=20)
def work(number: int, seconds: float, fails: float) -> str:
    """A value that no two runs have in common."""
    time.sleep(seconds)
    if random.random() < fails:
        raise ValueError("it fails now and then")
    print(f"work {number}")
    return f"{number} {uuid.uuid4().hex}"


@app.function(max_containers=1)
def numbers(count: int) -> Iterator[int]:
    yield from range(count)


def say(*words: object) -> None:
    print(f"{time.monotonic() - STARTED:7.1f} s ", *words, flush=True)


STARTED = time.monotonic()


class Up:
    """`minimodal up` in a process of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "minimodal", "up", "--progress", "none"]
        with open(self._log, "ab") as log:
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


class Load:
    """What the threads do, and the history that is checked at the end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.ending = threading.Event()
        self.accepted: dict[str, int] = {}  # spawned calls by id, with their number
        self.counts: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._number = 0

    def threads(self) -> list[threading.Thread]:
        jobs = [self._spawn, self._spawn, self._remote, self._map, self._stream]
        return [threading.Thread(target=self._repeat, args=(job,)) for job in jobs]

    def _repeat(self, job: object) -> None:
        while not self.ending.is_set():
            try:
                job()  # type: ignore[operator]  # a method
            except (minimodal.Error, ValueError, OSError) as error:
                # Attached calls die with their engine, and an engine that is away refuses.
                with self._lock:
                    self.counts["attached that failed"] += 1
                    self.errors[f"{type(error).__name__}: {error}"[:80]] += 1
                self.ending.wait(0.1)

    def _next(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def _spawn(self) -> None:
        number = self._next()
        with minimodal.as_user(f"user {number % 3}"):
            call = _function("work").spawn(number, self.random.random() * 0.05, 0.05)
        with self._lock:
            self.accepted[call.object_id] = number
            self.counts["spawned"] += 1
        self.ending.wait(0.05)

    def _remote(self) -> None:
        number = self._next()
        value = _function("work").remote(number, 0.01, 0.0)
        assert value.split()[0] == str(number), f"the answer of another call: {value}"
        self.counts["attached"] += 1

    def _map(self) -> None:
        found = list(_function("work").map([7] * 20, kwargs={"seconds": 0.0, "fails": 0.0}))
        assert len(set(found)) == len(found) == 20
        self.counts["attached"] += 20

    def _stream(self) -> None:
        assert list(_function("numbers").remote_gen(50)) == list(range(50))
        self.counts["streams"] += 1
        self.ending.wait(0.2)


def _function(name: str) -> minimodal.Function[..., object, object]:
    return minimodal.Function.from_name("soak", name)  # type: ignore[return-value]


def outcomes(accepted: dict[str, int]) -> dict[str, str]:
    """How each spawned call ended, by its id: its value, or its error in words."""
    found = {}
    for call_id, number in accepted.items():
        try:
            value = str(minimodal.FunctionCall.from_id(call_id).get(timeout=120))
            assert value.split()[0] == str(number)
            found[call_id] = value
        except TimeoutError:
            found[call_id] = "lost"
        except (minimodal.Error, ValueError) as error:
            found[call_id] = f"{type(error).__name__}: {error}"
    return found


def figures(pid: int) -> dict[str, int]:
    """Of a process: descriptors, threads, resident megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return {
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(fields["Threads"]),
        "rss MB": int(fields["VmRSS"].split()[0]) // 1024,
    }


def engine_figures(up: Up) -> dict[str, int]:
    """Of an engine without calls, and with its warm containers gone or not: the most idle of 3 looks."""
    from minimodal import context
    from minimodal.face import block
    from minimodal.lookup import running_up

    async def info() -> int:
        reply = await context.ask("engine.info", client=running_up())
        return int(reply.fields["tasks"])

    return {**figures(up.process.pid), "tasks": block(info())}


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(each) for each in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


def victims(backend: str, up: Up, home: Path) -> list[int]:
    """Host pids of all processes in the engine's containers."""
    if backend != "docker":
        return descendants(up.process.pid)
    command = ["docker", "ps", "-q", "--filter", f"label=minimodal.home={home / 'state'}"]
    ids = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    pids: list[int] = []
    for each in ids:
        top = ["docker", "top", each, "-o", "pid"]
        lines = subprocess.run(top, capture_output=True, text=True, check=False).stdout.split()
        pids += [int(line) for line in lines[1:]]
    return pids


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--backend", default="process")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    say(f"seed {options.seed}, {options.backend}, {options.minutes:g} minutes")
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        home = Path(directory)
        minimodal.host.start_ambient = _refuse  # while `up` is away nobody takes its place
        os.environ |= {"MINIMODAL_HOME": str(home), "MINIMODAL_BACKEND": options.backend}
        return soak(options, home)


def _refuse() -> None:
    raise NotRunningError("the engine is away")


def soak(options: argparse.Namespace, home: Path) -> int:
    environment = {**os.environ, "MINIMODAL_PORT": "0"}
    deploy = [sys.executable, "-m", "minimodal", "deploy", __file__]
    subprocess.run(deploy, env=environment, check=True, capture_output=True)
    up = Up(environment, home / "up.log")
    load, chance = Load(options.seed), random.Random(options.seed)
    for thread in (threads := load.threads()):
        thread.start()
    begun, kills = time.monotonic(), Counter[str]()
    end = begun + options.minutes * 60
    calm = begun + options.minutes * 40  # from here no engine is killed
    before: dict[str, dict[str, int]] = {}
    while time.monotonic() < end:
        time.sleep(chance.uniform(2, 10))
        if time.monotonic() > calm and not before:
            before = {"engine": engine_figures(up), "client": figures(os.getpid())}
        what = chance.choice(["process", "process", "engine"] if not before else ["process"])
        try:
            if what == "engine":
                up.kill()
            elif found := victims(options.backend, up, home):
                os.kill(chance.choice(found), signal.SIGKILL)
            kills[what] += 1
        except ProcessLookupError:
            continue  # it ended by itself meanwhile
        if up.process.poll() is not None:
            say("the engine ended by itself:", (home / "up.log").read_text()[-3000:])
            return 1
    load.ending.set()
    for thread in threads:
        thread.join()
    say("load ends; kills:", dict(kills))
    first = outcomes(load.accepted)
    second = outcomes(load.accepted)
    after = {"engine": engine_figures(up), "client": figures(os.getpid())}
    code = up.stop()
    print("retried {}, {} times because their container or engine went away".format(*retried(home)))
    return report(load, first, second, before, after, code)


def retried(home: Path) -> tuple[int, int]:
    """Calls on record that had more than one attempt, and the attempts that were lost."""
    store = home / "state" / "minimodal.db"
    with closing(sqlite3.connect(store)) as db:
        sql = "SELECT count(*), coalesce(sum(losses), 0) FROM calls WHERE attempt > 1"
        calls, losses = db.execute(sql).fetchone()
    return calls, losses


def report(
    load: Load,
    first: dict[str, str],
    second: dict[str, str],
    before: dict[str, dict[str, int]],
    after: dict[str, dict[str, int]],
    code: int,
) -> int:
    lost = [call for call, outcome in first.items() if outcome == "lost"]
    changed = [call for call in first if first[call] != second[call]]
    values = [value for value in first.values() if value[:1].isdigit()]
    twice = len(values) - len(set(values))
    grown = []
    print(f"submitted {sum(load.counts[k] for k in ('spawned', 'attached'))}: {dict(load.counts)}")
    print(
        f"finished {len(values)} of {len(first)} spawned, {len(first) - len(values)} with an error"
    )
    for error, count in Counter(v[:90] for v in first.values() if not v[:1].isdigit()).most_common(
        5
    ):
        print(f"  {count} x {error}")
    for error, count in load.errors.most_common(5):
        print(f"  attached: {count} x {error}")
    print(f"lost {len(lost)} {lost[:5]}")
    print(f"duplicated {len(changed) + twice} {changed[:5]}")
    for who in before:
        for name, start in before[who].items():
            at_end = after[who][name]
            print(f"{who} {name}: {start} at the start, {at_end} at the end")
            slack = max(15, start * 0.3) if name == "rss MB" else 20
            if at_end > start + slack:
                grown.append(f"{who} {name}")
    print(f"grown: {grown or 'nothing'}; the engine ended with {code}")
    return int(bool(lost or changed or twice or grown or code != 143))


if __name__ == "__main__":
    sys.exit(main())
