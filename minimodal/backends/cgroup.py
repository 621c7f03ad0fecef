"""Memory, cpu and pids limits through cgroups, version 1 or 2, where we may make some.

Each container has a group `<engine group>/<number>`; the engine's group is named by home and engine,
so that the groups of dead engines are found. Paths and words of both versions are data here; what
is written where is decided by pure functions.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import NamedTuple

from minimodal.engine_lock import is_alive
from minimodal.home import Home
from minimodal.types import Resources

CONTROLLERS = ("memory", "cpu", "pids")
_PERIOD = 100_000
_MARK = "minimodal-"
_FORGOTTEN_SECONDS = 300


class Hierarchy(NamedTuple):
    """A directory below which we may make groups, and the controllers that it has."""

    version: int
    path: Path
    controllers: frozenset[str]


def own_hierarchies() -> tuple[Hierarchy, ...]:
    """Where this process may make groups; empty if nowhere, or if this is not Linux."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text()
        return find_hierarchies(mountinfo, Path("/proc/self/cgroup").read_text())
    except OSError:
        return ()


def find_hierarchies(mountinfo: str, own: str, *, probe: bool = True) -> tuple[Hierarchy, ...]:
    """From /proc/self/mountinfo and /proc/self/cgroup: where groups can be made. Empty if nowhere."""
    paths = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines())}
    found: list[Hierarchy] = []
    missing = set(CONTROLLERS)
    for root, mount, kind, options in _cgroup_mounts(mountinfo):
        if kind == "cgroup":
            here = missing & set(options.split(","))
            group = next((p for names, p in paths.items() if here & set(names.split(","))), None)
            path = _below(mount, root, group) if here and group is not None else None
            if path is not None and (not probe or _can_make_groups(path)):
                found.append(Hierarchy(1, path, frozenset(here)))
                missing -= here
        elif "" in paths:
            start = _below(mount, root, paths[""])
            best = _best_v2(start, mount, missing, probe=probe) if start else None
            if best is not None:
                found.append(best)
                missing -= best.controllers
    return tuple(found)


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[str, Path, str, str]]:
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            fields = left.split(" ")
            yield fields[3], Path(fields[4]), kind, options


def _below(mount: Path, root: str, group: str) -> Path | None:
    """The directory of our own group, if the mount shows it; else the mount's own root."""
    if root != "/" and group.startswith(root):
        group = group[len(root) :]
    path = mount / group.lstrip("/")
    return path if path.is_dir() else mount if mount.is_dir() else None


def _best_v2(start: Path, top: Path, missing: set[str], *, probe: bool) -> Hierarchy | None:
    """The nearest group upwards whose children have the controllers: a group with processes of its
    own cannot give them any, and ours has at least us."""
    for path in (start, *start.parents):
        try:
            given = set((path / "cgroup.subtree_control").read_text().split()) & missing
        except OSError:
            given = set()
        if {"memory", "pids"} & given and (not probe or _can_make_groups(path)):
            return Hierarchy(2, path, frozenset(given))
        if path == top:
            break
    return None


def _can_make_groups(path: Path) -> bool:
    trial = path / f"minimodal-probe-{os.getpid()}"
    try:
        trial.mkdir()
        writable = os.access(trial / "cgroup.procs", os.W_OK)
        trial.rmdir()
    except OSError:
        return False
    # To move a process, version 2 also asks for the right on the common ancestor.
    return writable and os.access(path / "cgroup.procs", os.W_OK)


def settings(version: int, resources: Resources, controllers: frozenset[str]) -> Mapping[str, str]:
    """File name to value for one group. The cpu request is a weight, the limit a quota."""
    wanted: dict[str, str] = {}
    if "memory" in controllers and resources.memory_limit is not None:
        limit = str(resources.memory_limit << 20)
        if version == 1:
            wanted["memory.limit_in_bytes"] = limit
            wanted["memory.memsw.limit_in_bytes"] = limit  # absent where swap is not accounted
        else:
            wanted["memory.max"] = limit
            wanted["memory.swap.max"] = "0"
    if "cpu" in controllers:
        if version == 1:
            wanted["cpu.shares"] = str(max(2, round(resources.cpu * 1024)))
        else:
            wanted["cpu.weight"] = str(min(10_000, max(1, round(resources.cpu * 100))))
        if resources.cpu_limit is not None:
            quota = str(max(1000, round(resources.cpu_limit * _PERIOD)))
            if version == 1:
                wanted["cpu.cfs_period_us"] = str(_PERIOD)
                wanted["cpu.cfs_quota_us"] = quota
            else:
                wanted["cpu.max"] = f"{quota} {_PERIOD}"
    if "pids" in controllers:
        wanted["pids.max"] = str(resources.pids_limit)
    return wanted


_OPTIONAL = ("memory.memsw.limit_in_bytes", "memory.swap.max")


_JOIN = """
while [ "$1" != -- ]; do echo 0 >"$1" || exit 125; shift; done
shift
exec "$@"
"""


class Group(NamedTuple):
    """The groups of one container, one for each hierarchy. Its methods block for a short while."""

    paths: tuple[tuple[int, Path], ...]  # (version, directory)

    @property
    def doors(self) -> tuple[str, ...]:
        """The files into which a process writes 0 to join. Version 1 has one for a single thread:
        it spares the process the kernel's grace period, 10 to 20 ms."""
        names = {1: "tasks", 2: "cgroup.procs"}
        return tuple(str(path / names[version]) for version, path in self.paths)

    def joined(self, command: Sequence[str]) -> tuple[str, ...]:
        """The command, which joins before it runs: nothing that it starts is ever outside."""
        if not self.paths:
            return tuple(command)
        return ("/bin/sh", "-c", _JOIN, "sh", *self.doors, "--", *command)

    def oom_kills(self) -> int:
        """How many of its processes the kernel killed because of the memory limit."""
        for version, path in self.paths:
            name = "memory.oom_control" if version == 1 else "memory.events"
            with suppress(OSError):
                for line in (path / name).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return 0

    def remove(self, *, deadline: float = 2.0) -> None:
        """Kill what is left in it and remove it."""
        until = time.monotonic() + deadline
        for _, path in self.paths:
            while not _remove(path) and time.monotonic() < until:
                time.sleep(0.005)  # in a thread; the kernel tells nobody when a group gets empty


class Groups:
    """Makes the groups of one engine's containers."""

    def __init__(self, home: Home, engine_id: str, hierarchies: tuple[Hierarchy, ...]) -> None:
        self.hierarchies = hierarchies
        self._name = _prefix(home) + engine_id
        self._numbers = count(1)

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(name for h in self.hierarchies for name in h.controllers)

    def make(self, resources: Resources, joiner: int | None = None) -> Group:
        """A group with these limits, which the uid `joiner` may join. Whoever asks removes it."""
        number = str(next(self._numbers))
        group = Group(tuple((h.version, h.path / self._name / number) for h in self.hierarchies))
        try:
            for hierarchy, (version, path) in zip(self.hierarchies, group.paths, strict=True):
                self._engine_group(hierarchy)
                _make(path)
                wanted = settings(version, resources, hierarchy.controllers)
                for name, value in wanted.items():
                    _write(path / name, value)
            if joiner is not None:
                for door in group.doors:
                    os.chown(door, joiner, -1)
        except BaseException:
            group.remove()
            raise
        return group

    def _engine_group(self, hierarchy: Hierarchy) -> None:
        path = hierarchy.path / self._name
        path.mkdir(exist_ok=True)
        if hierarchy.version == 2:
            words = " ".join(f"+{name}" for name in sorted(hierarchy.controllers))
            _write(path / "cgroup.subtree_control", words)

    def remove(self) -> None:
        for hierarchy in self.hierarchies:
            with suppress(OSError):
                (hierarchy.path / self._name).rmdir()


def sweep(home: Home, hierarchies: tuple[Hierarchy, ...]) -> None:
    """Kill and remove what engines of this home left behind that are dead."""
    prefix = _prefix(home)
    for hierarchy in hierarchies:
        for path in hierarchy.path.glob(f"{prefix}*"):
            if not is_alive(home, path.name[len(prefix) :]):
                children = [p for p in path.iterdir() if p.is_dir()]
                Group(tuple((hierarchy.version, p) for p in children)).remove()
                with suppress(OSError):
                    path.rmdir()
        _sweep_forgotten(hierarchy.path)


def _sweep_forgotten(parent: Path) -> None:
    """Remove the groups of homes that are no more: nobody else would. A group that has had no
    process for so long is no living container's, and an engine makes its own again when needed."""
    for engine in parent.glob(f"{_MARK}*"):
        for path in (*engine.glob("[0-9]*"), engine):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > _FORGOTTEN_SECONDS:
                    path.rmdir()  # fails while there is a process or a group in it


def _prefix(home: Home) -> str:
    """Whether an engine lives only its own home can tell, so the name says which home."""
    return f"{_MARK}{hashlib.sha256(str(home.engines).encode()).hexdigest()[:8]}-"


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        with suppress(OSError):
            for pid in (path / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        return False
    return True


def _make(path: Path) -> None:
    try:
        path.mkdir()
    except FileNotFoundError:  # another engine has just swept our empty group away
        path.parent.mkdir(exist_ok=True)
        path.mkdir()


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except OSError:
        if path.name not in _OPTIONAL:
            raise
