"""Processes of containers as the host sees them: found by what they say of themselves, then signalled."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from minimodal.leaks import children


@dataclass(frozen=True)
class HostProcess:
    """One process, by its number on the host."""

    pid: int

    @classmethod
    def of(cls, words: str) -> HostProcess:
        """The process that said "who PID NAMESPACE"."""
        _, inner, namespace = words.split()
        for pid in _all():
            if _namespace(pid) == namespace and _numbers(pid)[-1:] == [inner]:
                return cls(pid)
        raise AssertionError(f"no process of the host is {words}")

    @property
    def init(self) -> HostProcess:
        """The first process of its pid namespace."""
        namespace = _namespace(self.pid)
        for pid in _all():
            if _namespace(pid) == namespace and _numbers(pid)[-1:] == ["1"]:
                return HostProcess(pid)
        raise AssertionError("it has no namespace of its own")

    @property
    def parent(self) -> HostProcess:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return HostProcess(int(stat.rpartition(")")[2].split()[1]))

    @property
    def alive(self) -> bool:
        """A zombie has ended."""
        try:
            stat = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def namespace(self) -> list[HostProcess]:
        """All processes of its pid namespace."""
        wanted = _namespace(self.pid)
        return [HostProcess(pid) for pid in _all() if _namespace(pid) == wanted]

    def wait_gone(self, seconds: float) -> float:
        """Seconds until it was gone; an error after `seconds`. Nobody tells about a foreign process."""
        started = time.monotonic()
        while self.alive:
            assert time.monotonic() - started < seconds, f"{self} still runs after {seconds} s"
            time.sleep(0.005)
        return time.monotonic() - started


def named(*words: str) -> list[HostProcess]:
    """Living processes with all these words in their command line."""
    found = []
    for pid in _all():
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if all(word.encode() in line for word in words) and HostProcess(pid).alive:
            found.append(HostProcess(pid))
    return found


def descendants_of(pid: int) -> list[HostProcess]:
    return [HostProcess(int(each.split()[0])) for each in children(pid)]


def _all() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid").strip("pid:[]")
    except OSError:
        return ""


def _numbers(pid: int) -> list[str]:
    """Its pid in each namespace, the innermost last."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    line = next((line for line in text.splitlines() if line.startswith("NSpid:")), "")
    return line.split()[1:]
