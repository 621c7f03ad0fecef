"""The user's script of the fault suite: one function that does each bad thing when it is told to."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import minimodal

app = minimodal.App("faults")


def who() -> str:
    """Where this process is, for a test that looks for it on the host."""
    namespace = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return f"who {os.getpid()} {namespace}"


def wait() -> str:
    """Say who we are and wait for SIGUSR2."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    print(who(), flush=True)
    while signal.sigtimedwait([signal.SIGUSR2], 60) is None:
        pass
    return "released"


def hold_the_gil() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")


def block_all_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def fork_and_return() -> str:
    return "child" if os.fork() == 0 else "parent"


def leave_a_grandchild(own_session: bool) -> str:
    child = subprocess.Popen(["sleep", "297"], start_new_session=own_session)
    print(f"grandchild {child.pid}", flush=True)
    return "fine"


def close_descriptors() -> None:
    os.closerange(3, 512)


def cover_descriptors() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3, 64):
        if fd != null:
            os.dup2(null, fd)


def write_junk() -> str:
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff" * 4096)
        except OSError:
            pass  # not open, or not for writing
    return "wrote"


def start_threads(count: int) -> int:
    done = threading.Event()
    threads: list[threading.Thread] = []
    try:
        for _ in range(count):
            threads.append(threading.Thread(target=done.wait, daemon=True))
            threads[-1].start()
    finally:
        done.set()
    return len(threads)


def fork_bomb() -> int:
    children = []
    try:
        for _ in range(10_000):
            pid = os.fork()
            if pid == 0:
                time.sleep(300)
                os._exit(0)
            children.append(pid)
    finally:
        print(f"forked {len(children)}", flush=True)
    return len(children)


def fill_shared_memory(mebibytes: int) -> None:
    with open("/dev/shm/filled", "wb") as file:
        for _ in range(mebibytes):
            file.write(bytes(1 << 20))


def flood(seconds: float, limit: int) -> str:
    """`yes` writes to the descriptor that a subprocess inherits."""
    command = f"timeout {seconds:g} yes | head -c {limit}"
    subprocess.run(["sh", "-c", command], check=False)
    return "fine"


def write_odd_logs() -> str:
    os.write(1, b"x" * (3 << 20) + b"\n")
    os.write(1, b"bad \xff\xfe utf-8\n")
    os.write(1, b"nul \x00 and \x1b[31mred\x1b[2J\n")
    os.write(1, b"\n" * 200_000)
    os.write(1, b"the end\n")
    return "fine"


class Slow:
    """Whoever unpickles it waits."""

    def __reduce__(self) -> Any:
        return time.sleep, (1.0,)


class Canary:
    """Says that somebody unpickled it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


def send_frame(kind: str, offset: int, times: int) -> str:
    """Speak to the engine on the executor's own connection, past the agent."""
    import gc

    from minimodal.agent.executor import SerialExecutor
    from minimodal.wire import Kind

    [executor] = [each for each in gc.get_objects() if isinstance(each, SerialExecutor)]
    for _ in range(times):
        executor._link.send(Kind[kind], executor._running + offset, "0.0")
    time.sleep(5)
    return "fine"


def open_connections(count: int) -> int:
    """Hold so many connections to the engine open at once, and say how many it has refused."""
    path = os.environ.get("MINIMODAL_SOCKET", "/run/minimodal/engine.sock")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for each in held:
        each.connect(path)
    held[-1].recv(1)  # the last is over the limit: those before it have been decided by now
    refused = sum(_is_closed(each) for each in held)
    for each in held:
        each.close()
    return refused


def _is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False


DEEDS = {
    "fine": lambda: "fine",
    "who": who,
    "wait": wait,
    "segfault": lambda: ctypes.string_at(0),
    "os._exit": lambda: os._exit(3),
    "sys.exit": lambda: sys.exit(3),
    "SystemExit": lambda: (_ for _ in ()).throw(SystemExit("enough")),
    "kill": lambda: os.kill(os.getpid(), 15),
    "allocate": lambda n: len(bytearray(n)),
    "threads": start_threads,
    "fork bomb": fork_bomb,
    "shared memory": fill_shared_memory,
    "grandchild": leave_a_grandchild,
    "close": close_descriptors,
    "cover": cover_descriptors,
    "junk": write_junk,
    "fork": fork_and_return,
    "gil": hold_the_gil,
    "mask": block_all_signals,
    "sleep": time.sleep,
    "flood": flood,
    "odd logs": write_odd_logs,
    "echo": lambda value: value,
    "zeros": bytes,
    "list": lambda n: list(range(n)),
    "nested": nested,
    "canary": Canary,
    "slow": Slow,
    "send": send_frame,
    "connect": open_connections,
}


@app.function(max_containers=1)
def do(deed: str, *args: Any) -> Any:
    return DEEDS[deed](*args)


@app.function(max_containers=2)
def neighbour(deed: str, *args: Any) -> Any:
    """Another function: what happens to `do` must not touch it."""
    return DEEDS[deed](*args)


@app.function(max_containers=1)
def numbers(count: int, bulk: int) -> Iterator[bytes]:
    for n in range(count):
        print(f"item {n}", flush=True)
        yield bytes(bulk)
