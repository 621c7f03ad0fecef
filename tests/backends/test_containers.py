"""What bubblewrap and process have in common: run, end, kill, exec, files, limits, no leftovers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import anyio
import pytest

from minimodal.backends.cgroup import own_hierarchies
from minimodal.errors import InvalidError, LaunchError
from minimodal.home import open_home
from minimodal.types import Mount, Resources

from .rig import open_rig, output_of, run

BOTH = ["process", pytest.param("bubblewrap", marks=pytest.mark.bubblewrap)]


@pytest.fixture(params=BOTH)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
def test_code_runs_and_its_end_is_known(name: str, uvloop: bool) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            assert await rig.value_of("print(6 * 7)") == 42
            reason = await rig.end_of(rig.python("import sys; print('oh'); sys.exit(3)"))
            assert (reason.code, reason.signal, reason.detail) == (3, None, "oh")
            killed = "import os; os.kill(os.getpid(), 11)"
            assert (await rig.end_of(rig.python(killed))).signal == signal.SIGSEGV

    run(test, uvloop=uvloop)


@pytest.mark.parametrize("minor", ["3.10", "3.11", "3.12", "3.13"])
def test_each_python_of_the_host_can_be_asked_for(name: str, minor: str) -> None:
    from minimodal.errors import BuildError
    from minimodal.images.host_python import find_python

    try:
        find_python(minor)
    except BuildError as error:
        pytest.skip(str(error))

    async def test() -> None:
        async with open_rig(name, python=minor) as rig:
            code = (
                "import json, sys; print(json.dumps(['%d.%d' % sys.version_info[:2], sys.prefix]))"
            )
            version, prefix = await rig.value_of(code)
            assert version == minor
            assert prefix != sys.base_prefix  # an environment of its own: nothing of the host's

    run(test)


def test_an_image_sees_nothing_of_what_the_engine_has_installed(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            code = """
                import importlib.util as u, json
                print(json.dumps([n for n in ("anyio", "pytest", "minimodal") if u.find_spec(n)]))
            """
            assert await rig.value_of(code) == []

    run(test)


def test_a_kill_takes_all_of_it_and_waiting_twice_gives_the_same(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            code = "import subprocess, time; subprocess.Popen(['sleep', '300']); time.sleep(300)"
            async with rig.launch(rig.python(code)) as container:
                await container.kill()
                reason = await container.wait()
                assert reason.signal == signal.SIGKILL
                assert await container.wait() == reason
                await container.kill()

    run(test)


def test_f17_a_grandchild_with_a_session_of_its_own_is_gone_after_the_block(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            code = """
                import subprocess, sys
                subprocess.Popen(["sleep", "301"], start_new_session=True)
                print(1)
            """
            started = time.monotonic()
            assert await rig.value_of(code) == 1
            assert time.monotonic() - started < 10

    run(test)
    assert "sleep 301" not in subprocess.check_output(["ps", "axwwo", "args"], text=True)


def test_environment_workdir_and_no_host_secrets(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SECRET", "hush")

    async def test() -> None:
        async with open_rig(name) as rig:
            code = "import os, json; print(json.dumps([os.getcwd(), dict(os.environ)]))"
            cwd, env = await rig.value_of(code, env={"A": "b=c d\n"}, workdir="/usr")
            assert cwd == "/usr"
            assert env["A"] == "b=c d\n"
            assert "HOST_SECRET" not in env

    run(test)


def test_the_source_snapshot_is_found_and_writes_stay_out_of_it(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            snapshot = rig.home.sources / "abc"
            (snapshot / "package").mkdir(parents=True, exist_ok=True)
            (snapshot / "package" / "module.py").write_text("VALUE = 7")
            (snapshot / "added.txt").write_text("local")
            mounts = (
                Mount("sources", "abc", "/root"),
                Mount("local", str(snapshot / "added.txt"), "/root/package/data.txt"),
            )
            code = """
                import os, sys, json
                root = os.environ["MINIMODAL_SOURCES_DIR"]
                sys.path.insert(0, root)
                from package import module
                open(os.path.join(root, "written"), "w").close()
                print(json.dumps([module.VALUE, open(root + "/package/data.txt").read()]))
            """
            assert await rig.value_of(code, mounts=mounts) == [7, "local"]
            found = sorted(str(p.relative_to(snapshot)) for p in snapshot.rglob("*.*"))
            assert found == ["added.txt", "package/module.py"]

    run(test)


def test_exec_runs_beside_it_with_streams_and_code(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            spec = rig.python("import time; time.sleep(300)", env={"A": "1"})
            async with rig.launch(spec) as container:
                await anyio.sleep(0.2)
                script = "echo $A$B; echo bad >&2; exit 5"
                assert await output_of(container, "sh", "-c", script, env={"B": "2"}) == (
                    5,
                    "12\n",
                    "bad\n",
                )
                process = await container.exec(("cat",), env={}, workdir="/")
                await process.stdin.send(b"hello")
                await process.stdin.aclose()
                assert await process.stdout.receive() == b"hello"
                assert await process.wait() == 0
                process = await container.exec(("sleep", "302"), env={}, workdir=None)
                await process.kill()
                assert await process.wait() != 0
                await container.exec(("sleep", "303"), env={}, workdir=None)  # left running

    run(test)


def test_a_flood_of_output_neither_blocks_nor_grows(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            code = "import sys; [sys.stdout.write('x' * 100000) for _ in range(500)]; print(); print(1)"
            assert await rig.value_of(code) == 1

    run(test)


def test_mounts_that_cannot_be_are_refused_by_name(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            for bad, error in (
                (Mount("sources", "../../etc", "/root"), InvalidError),
                (Mount("sources", "gone", "/root"), LaunchError),
                (Mount("local", "relative", "/root/x"), InvalidError),
                (Mount("local", "/usr", "/proc/x"), InvalidError),
                (Mount("local", "/usr", "/"), InvalidError),
                (Mount("local", "/usr", "usr"), InvalidError),
                (Mount("magic", "x", "/root/x"), InvalidError),
            ):
                with pytest.raises(error):
                    await rig.end_of(rig.python("print(1)", mounts=(bad,)))

    run(test)


def has_cgroup(text: str) -> bool:
    return "cgroup" in text


def test_f10_out_of_memory_is_told_from_other_kills(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            if not has_cgroup(rig.backend.describe().memory):
                pytest.skip("no writable memory cgroup here")
            resources = Resources(memory_limit=64)
            spec = rig.python("x = bytearray(300 << 20)", resources=resources)
            reason = await rig.end_of(spec)
            assert reason.oom
            assert reason.signal == signal.SIGKILL
            child = """
                import subprocess, sys
                big = subprocess.run([sys.executable, "-c", "x = bytearray(300 << 20)"])
                print(big.returncode, flush=True)
                import time; time.sleep(60)
            """
            async with rig.launch(rig.python(child, resources=resources)) as container:
                with anyio.fail_after(20):
                    while not container.oom_kills():  # type: ignore[attr-defined]  # noqa: ASYNC110
                        await anyio.sleep(0.02)
                await container.kill()

    run(test)


def test_f13_a_fork_bomb_hits_the_limit_and_nobody_else(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            if not has_cgroup(rig.backend.describe().pids):
                pytest.skip("no writable pids cgroup here")
            code = """
                import os, signal
                n = 0
                try:
                    while n < 200:
                        if not os.fork():
                            signal.pause()
                        n += 1
                except BlockingIOError:
                    print(n)
            """
            number = await rig.value_of(code, resources=Resources(pids_limit=50))
            assert 30 < number < 50

    run(test)


def test_cpu_limit_holds(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            if not has_cgroup(rig.backend.describe().cpu):
                pytest.skip("no writable cpu cgroup here")
            code = """
                import time
                end = time.monotonic() + 1.5
                while time.monotonic() < end: pass
                print(time.process_time())
            """
            used = await rig.value_of(code, resources=Resources(cpu_limit=0.2))
            assert used < 0.8

    run(test)


ENGINE = """
import os, sys, anyio
from tests.backends.rig import open_rig
from minimodal.home import open_home
async def main():
    async with open_rig(sys.argv[1], home=open_home(sys.argv[2])) as rig:
        code = "import subprocess, time; subprocess.Popen(['sleep', %r]); time.sleep(%s)"
        async with rig.launch(rig.python(code % (sys.argv[3], sys.argv[3]))):
            await anyio.sleep(0.3)
            print(rig.engine_id, flush=True)
            await anyio.sleep(300)
anyio.run(main)
"""


def sleepers(seconds: str) -> list[int]:
    """The pids of living processes of the container of `ENGINE`, seen from the host."""
    rows = subprocess.check_output(["ps", "axwwo", "pid,stat,args"], text=True).splitlines()
    fields = [row.split(None, 2) for row in rows if seconds in row and "open_rig" not in row]
    return [int(pid) for pid, state, _ in fields if state[0] not in "ZX"]


@pytest.mark.parametrize("freeze", [False, True], ids=["running", "frozen"])
def test_f30_f31_a_container_does_not_outlive_its_engine(name: str, freeze: bool) -> None:
    home = open_home()
    seconds = f"304.{time.monotonic_ns()}"  # what to look for in the process list
    with subprocess.Popen(
        [sys.executable, "-c", ENGINE, name, str(home.data.parent), seconds],
        stdout=subprocess.PIPE,
        text=True,
    ) as engine:
        assert engine.stdout
        try:
            engine_id = engine.stdout.readline().strip()
            assert engine_id.startswith("en-")
            assert len(sleepers(seconds)) >= 2
            for pid in sleepers(seconds) if freeze else ():
                os.kill(pid, signal.SIGSTOP)
        finally:
            engine.kill()
    if name == "bubblewrap":  # of a plain process what it started goes at the next start
        assert gone(seconds)

    async def test() -> None:
        assert (home.runtime / "c" / engine_id).exists()
        async with open_rig(name) as other, open_rig(name) as rig:
            assert not (home.runtime / "c" / engine_id).exists()
            assert await rig.value_of("print(1)") == 1
            assert await other.value_of("print(1)") == 1

    run(test)
    assert gone(seconds)
    assert groups_of(engine_id) == []


def gone(seconds: str) -> bool:
    deadline = time.monotonic() + 2
    while sleepers(seconds) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not sleepers(seconds)


def test_groups_and_directories_go_with_the_engine(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            async with rig.launch(rig.python("import time; time.sleep(300)")):
                if has_cgroup(rig.backend.describe().pids):
                    assert groups_of(rig.engine_id)
            assert list((rig.home.runtime / "c" / rig.engine_id).glob("[0-9]*")) == []
        assert not (rig.home.runtime / "c" / rig.engine_id).exists()
        assert groups_of(rig.engine_id) == []

    run(test)


def groups_of(engine_id: str) -> list[str]:
    pattern = f"minimodal-*-{engine_id}"
    return [str(path) for h in own_hierarchies() for path in h.path.glob(pattern)]


def test_many_at_once(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig, anyio.create_task_group() as tasks:
            done: list[int] = []

            async def one(number: int) -> None:
                done.append(await rig.value_of(f"print({number})"))

            for number in range(8):
                tasks.start_soon(one, number)
        assert sorted(done) == list(range(8))

    run(test)


def test_cancelling_in_the_middle_of_a_launch_leaves_nothing(name: str) -> None:
    async def test() -> None:
        async with open_rig(name) as rig:
            for milliseconds in (0, 1, 2, 4, 8, 12, 16, 20, 30, 50):
                with anyio.move_on_after(milliseconds / 1000):
                    await rig.end_of(rig.python("import time; time.sleep(305)"))
            assert list((rig.home.runtime / "c" / rig.engine_id).glob("[0-9]*")) == []
            assert await rig.value_of("print(1)") == 1

    run(test)
