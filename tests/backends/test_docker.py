"""The Docker backend on a real engine: what a container can reach, how it ends, what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from minimodal.backends.docker import open_backend
from minimodal.errors import BuildError, LaunchError
from minimodal.home import Home
from minimodal.types import ContainerSpec, ExitReason, ImageRef, Mount, Resources, new_id
from minimodal.wire import Decoder, Frame, Kind
from tests.docker_engine import (
    BASE,
    HELLO,
    STAY,
    Peer,
    containers_of,
    eventually,
    joined,
    none_left,
    opened_backend,
    output_of,
    short_home,
    spec,
)

pytestmark = pytest.mark.docker


def test_a_container_talks_over_its_socket_and_is_gone_after_the_block() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                await peer.heard.wait()
                assert peer.data == b"hello"
                assert [c["State"] for c in await containers_of(backend)] == ["running"]
            assert await none_left(backend)
            await peer.closed.wait()
            assert (await container.wait()).signal == 9

    with short_home() as home:
        anyio.run(main, home)
        assert list((home.runtime / "c").iterdir()) == []


def test_the_agent_says_hello_from_an_image_without_anything_of_ours() -> None:
    async def main(home: Home) -> bytes:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(ContainerSpec(new_id("ct"), "test", BASE), lambda: peer):
                with anyio.fail_after(10):
                    await peer.heard.wait()
            return peer.data

    with short_home() as home:
        heard: list[Frame] = []
        Decoder(heard.append).feed(anyio.run(main, home))
    assert heard[0].kind is Kind.HELLO
    assert json.loads(heard[0].meta)["role"] == "supervisor"


def test_containers_share_a_network_namespace_but_those_that_ask_for_their_own() -> None:
    async def main(home: Home) -> None:
        namespace = "engine.sendall(os.readlink('/proc/self/ns/net').encode())"
        async with opened_backend(home) as backend:
            shared = {await output_of(backend, namespace) for _ in range(2)}
            private = await output_of(backend, namespace, private_network=True)
        assert len(shared) == 1
        assert private not in shared

    with short_home() as home:
        anyio.run(main, home)


def test_a_dead_network_holder_costs_time_and_nothing_else() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            await output_of(backend, "")
            await backend._api.remove((await joined(backend)).removeprefix("container:"))
            assert await output_of(backend, "engine.sendall(b'!')") == "!"

    with short_home() as home:
        anyio.run(main, home)


WALLS = r"""
import ctypes, json, socket, subprocess
libc = ctypes.CDLL(None, use_errno=True)
def denied(attempt):
    try:
        return not attempt()
    except (OSError, subprocess.CalledProcessError):
        return True
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
print(json.dumps({
    "uid": os.getuid(), "caps": status["CapEff"], "bound": status["CapBnd"],
    "privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "open doors": [name for name, attempt in {
        "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0,
        "remount": lambda: libc.mount(b"none", b"/opt/x", None, 32 | 4096, None) == 0,
        "unshare": lambda: libc.unshare(0x10000000) == 0,
        "mknod": lambda: os.mknod("/tmp/sda", 0o60644, os.makedev(8, 0)) is None,
        "sysctl": lambda: open("/proc/sys/vm/swappiness", "w").write("10"),
        "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "docker": lambda: os.path.exists("/var/run/docker.sock"),
        "read-only": lambda: open("/opt/x/new", "w"),
        "sockets": lambda: open("/run/minimodal/new", "w"),
        "root": lambda: os.setuid(0) is None,
    }.items() if not denied(attempt)],
}), file=engine.makefile("w"), flush=True)
"""


def test_the_walls_hold_from_inside() -> None:
    async def main(home: Home) -> dict[str, Any]:
        home.blobs.mkdir(parents=True)
        (home.blobs / "x").mkdir()
        async with opened_backend(home) as backend:
            mounts = (Mount("file", "x", "/opt/x"),)
            found: dict[str, Any] = json.loads(await output_of(backend, WALLS, mounts=mounts))
        return found

    with short_home() as home:
        found = anyio.run(main, home)
    assert found["open doors"] == []
    assert int(found["caps"], 16) == int(found["bound"], 16) == 0
    assert (found["privileges"], found["seccomp"]) == ("1", "2")
    assert found["uid"] != 0


def test_without_a_network_there_is_only_loopback() -> None:
    async def main(home: Home) -> str:
        interfaces = "engine.sendall(','.join(sorted(os.listdir('/sys/class/net'))).encode())"
        async with opened_backend(home) as backend:
            return await output_of(backend, interfaces, block_network=True)

    with short_home() as home:
        assert anyio.run(main, home) == "lo"


def ending(code: str, **fields: Any) -> ExitReason:
    async def main(home: Home) -> ExitReason:
        async with opened_backend(home) as backend:
            async with backend.launch(spec(code, **fields), Peer) as container:
                with anyio.fail_after(30):
                    return await container.wait()
            raise AssertionError

    with short_home() as home:
        return anyio.run(main, home)


def test_the_end_has_its_code_and_what_was_printed_last() -> None:
    reason = ending("import sys; print('x' * 100_000); sys.exit('over and out')")
    assert reason.code == 1
    assert reason.detail.endswith("over and out")
    assert len(reason.detail) <= 8 << 10


def test_over_its_memory_limit_it_ended_by_oom() -> None:
    reason = ending("bytearray(300 << 20)", resources=Resources(memory_limit=64))
    assert (reason.oom, reason.signal) == (True, 9)


def test_tmpfs_counts_as_memory() -> None:
    code = "open('/dev/shm/x', 'wb').write(bytes(200 << 20))"
    assert ending(code, resources=Resources(memory_limit=100)).oom


def test_a_clean_end_is_no_oom_although_a_child_was_killed() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytearray(300 << 20)'])"
    reason = ending(code, resources=Resources(memory_limit=64))
    assert (reason.oom, reason.code) == (False, 0)


def test_a_fork_bomb_meets_the_pids_limit() -> None:
    code = """
import os, sys, time
for n in range(200):
    try:
        if os.fork() == 0: time.sleep(60)
    except BlockingIOError:
        sys.exit(f"stopped at {n}")
"""
    reason = ending(code, resources=Resources(pids_limit=50))
    assert reason.detail.startswith("stopped at 4")


def test_f23_an_image_without_the_interpreter_says_so() -> None:
    async def main(home: Home) -> ExitReason:
        from dataclasses import replace

        async with opened_backend(home) as backend:
            wrong = replace(spec(""), command=("python9", "-c", ""))
            async with backend.launch(wrong, Peer) as container:
                return await container.wait()
            raise AssertionError

    with short_home() as home:
        reason = anyio.run(main, home)
    assert reason.code == 127
    assert "python9" in reason.detail


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"image": ImageRef("", "minimodal/gone")}, BuildError, "minimodal/gone of test is gone"),
        ({"runtime": "nosuch"}, LaunchError, r"nosuch.*has these runtimes: .*runc"),
        ({"mounts": (Mount("file", "gone", "/x"),)}, LaunchError, "gone.*does not exist"),
    ],
)
def test_what_cannot_start_is_named(
    fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            with pytest.raises(error, match=words):
                async with backend.launch(spec("", **fields), Peer):
                    pass

    with short_home() as home:
        anyio.run(main, home)


@pytest.mark.parametrize("how", ["remove", "kill", "init"])
def test_f05_a_container_ended_behind_our_back_is_noticed(how: str) -> None:
    async def main(home: Home) -> ExitReason:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                await peer.heard.wait()
                if how == "remove":
                    await backend._api.remove(container.docker_id)
                elif how == "kill":
                    await backend._api.kill(container.docker_id)
                else:
                    state = (await backend._api.inspect(container.docker_id))["State"]
                    os.kill(state["Pid"], signal.SIGKILL)
                with anyio.fail_after(2):
                    return await container.wait()
            raise AssertionError

    with short_home() as home:
        reason = anyio.run(main, home)
    assert reason.signal == 9 or (how == "remove" and "removed" in str(reason))


def test_f06_a_frozen_container_can_be_killed() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                await peer.heard.wait()
                handle = backend._api._client.containers.container(container.docker_id)
                await handle.pause()
                with anyio.fail_after(5):
                    await container.kill()
                    assert (await container.wait()).signal == 9
                    await container.kill()

    with short_home() as home:
        anyio.run(main, home)


def test_processes_inside_have_streams_codes_and_an_end() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                script = "cat; echo $WHO in $PWD >&2; exit 3"
                cat = await container.exec(("sh", "-c", script), env={"WHO": "me"}, workdir="/usr")
                await cat.stdin.send(b"through")
                await cat.stdin.aclose()
                assert [chunk async for chunk in cat.stdout] == [b"through"]
                assert [chunk async for chunk in cat.stderr] == [b"me in /usr\n"]
                assert await cat.wait() == 3

                code = "import subprocess; subprocess.run(['sleep', '60'])"
                sleeper = await container.exec(("python3", "-c", code), env={}, workdir=None)
                await sleeper.kill()
                with anyio.fail_after(5):
                    assert await sleeper.wait() == 137
                top = await container.exec(
                    ("sh", "-c", "cat /proc/*/cmdline"), env={}, workdir=None
                )
                assert b"sleep" not in b"".join([chunk async for chunk in top.stdout])

                big = await container.exec(
                    ("head", "-c", "9000000", "/dev/zero"), env={}, workdir=None
                )
                assert sum([len(chunk) async for chunk in big.stdout]) == 9_000_000

    with short_home() as home:
        anyio.run(main, home)


def test_a_command_that_does_not_exist_is_an_error_or_exit_127() -> None:
    async def main(home: Home) -> int:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                process = await container.exec(("nosuch",), env={}, workdir=None)
                return await process.wait()
            raise AssertionError

    with short_home() as home:
        assert anyio.run(main, home) in (126, 127)


def test_cancelled_in_the_middle_of_a_start_nothing_is_left() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            for delay in (0.001, 0.01, 0.02, 0.05, 0.1):
                with anyio.move_on_after(delay):
                    async with backend.launch(spec(HELLO + STAY), Peer):
                        await anyio.sleep_forever()
            # What a cancelled request still made is removed a moment later.
            assert await eventually(lambda: none_left(backend))

    with short_home() as home:
        anyio.run(main, home)


ENGINE = """
import sys, anyio
from tests.docker_engine import *
async def main():
    async with opened_backend(open_home(sys.argv[1])) as backend:
        peers = [Peer(), Peer()]
        async with backend.launch(spec(HELLO + STAY), lambda: peers[0]):
            async with backend.launch(spec(HELLO + "__import__('time').sleep(600)"), lambda: peers[1]):
                for peer in peers:
                    await peer.heard.wait()
                await joined(backend)
                print("ready", flush=True)
                await anyio.sleep_forever()
anyio.run(main)
"""


def test_what_a_killed_engine_left_is_removed_by_the_next_one() -> None:
    async def swept(home: Home) -> list[dict[str, Any]]:
        async with open_backend(home, None) as backend:
            labelled = await containers_of(backend)
            await eventually(lambda: none_left(backend))
            return labelled

    root = Path(__file__).parents[2]
    with short_home() as home:
        directory = str(home.state.parent)
        command = [sys.executable, "-c", ENGINE, directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as engine:
            assert engine.stdout is not None
            assert engine.stdout.readline() == b"ready\n"
            engine.kill()
        # The agent ends by itself at EOF, the holder of the network too; one that sleeps is swept.
        left = anyio.run(swept, home)
        assert len(left) >= 1
        assert list((home.runtime / "c").iterdir()) == []


def test_the_containers_of_a_live_engine_are_left_alone() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            peer = Peer()
            async with backend.launch(spec(HELLO + STAY), lambda: peer) as container:
                await peer.heard.wait()
                async with open_backend(home, None) as second:
                    await second.remove_orphans()
                assert (await backend._api.inspect(container.docker_id))["State"]["Running"]

    with short_home() as home:
        anyio.run(main, home)


def test_it_says_what_it_enforces() -> None:
    async def main(home: Home) -> None:
        async with opened_backend(home) as backend:
            told = backend.describe()
            assert told.name == "docker"
            assert "unix:///" in told.notes[0]

    with short_home() as home:
        anyio.run(main, home)
