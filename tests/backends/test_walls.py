"""F102 on bubblewrap: code inside tries the walls, started by root and by an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from minimodal.backends import identity
from minimodal.types import Mount, Resources

from .rig import Rig, open_rig, output_of, run

pytestmark = pytest.mark.bubblewrap

WALLS = Path(__file__).with_name("walls.py")
NOBODY = 65534
DEVICES = (
    "console core fd full null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
)


async def look(rig: Rig, **changes: Any) -> dict[str, Any]:
    # Never created here: these paths must not exist or not be readable inside.
    host_home = pwd.getpwuid(os.getuid()).pw_dir
    secret = rig.home.data / "secret"
    secret.write_text("hush")
    wanted = {
        "unreadable": [
            str(secret),
            str(rig.home.runtime),
            str(rig.home.layers),
            f"{host_home}/.bashrc",
            f"{host_home}/.ssh",
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/sys/kernel",
            "/mnt",
            "/srv",
        ],
        "unwritable": [sys.base_prefix + "/x", "/data/read-only/x"],
    }
    shared = rig.home.data / "shared"
    (shared).mkdir(exist_ok=True)
    mounts = (
        Mount("local", str(WALLS), "/root/walls.py"),
        Mount("local", str(shared), "/data/read-only"),
    )
    command = (rig.image.python, "/root/walls.py", json.dumps(wanted))
    reason = await rig.end_of(rig.spec(command=command, mounts=mounts, **changes))
    assert reason.code == 0, reason.detail
    found: dict[str, Any] = json.loads(reason.detail.splitlines()[-1])
    return found


def check(found: dict[str, Any]) -> None:
    possible = {name: said for name, said in found["attempts"].items() if said != "refused"}
    assert possible == {}
    status = found["status"]
    assert [status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == ["0" * 16] * 4
    assert status["NoNewPrivs"] == "1"
    assert found["uid"] == [1000, 1000, 1000]
    assert len(found["pids"]) <= 3  # init, this, and nothing of the host
    assert found["tmp"] == []
    assert set(found["devices"]) <= set(DEVICES)
    assert "mnt" not in found["root"]


def test_f102_the_walls_hold() -> None:
    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            found = await look(rig)
            check(found)
            assert 0 not in found["groups"]

    run(test)


def test_network_none_has_only_the_loopback() -> None:
    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            found = await look(rig, block_network=True)
            check(found)
            assert found["interfaces"] == ["lo"]

    run(test)


def test_a_process_started_by_exec_has_the_same_walls() -> None:
    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            mounts = (Mount("local", str(WALLS), "/root/walls.py"),)
            spec = rig.python("import time; time.sleep(300)", mounts=mounts, block_network=True)
            async with rig.launch(spec) as container:
                await anyio.sleep(0.2)
                wanted = json.dumps({"unreadable": [], "unwritable": [sys.base_prefix + "/x"]})
                code, out, err = await output_of(
                    container, rig.image.python, "/root/walls.py", wanted
                )
                assert code == 0, err
                found = json.loads(out)
                found["pids"] = found["pids"][1:]  # one more process runs
                check(found)
                assert found["interfaces"] == ["lo"]
                assert found["status"]["CapBnd"] == "0" * 16

    run(test)


def test_two_containers_do_not_see_each_other() -> None:
    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            code = """
                import time
                open("/tmp/mine", "w").close()
                open("/dev/shm/mine", "w").close()
                time.sleep(300)
            """
            async with rig.launch(rig.python(code)):
                await anyio.sleep(0.3)
                look_around = """
                    import json, os
                    print(json.dumps([os.listdir(p) for p in ("/tmp", "/dev/shm", "/run")]))
                """
                assert await rig.value_of(look_around) == [[], [], ["minimodal"]]

    run(test)


def test_started_by_root_code_is_not_root_on_the_host() -> None:
    if os.getuid() != 0:
        pytest.skip("not started by root")

    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            volume = rig.home.volumes / ".views" / "vo-1"
            volume.mkdir(parents=True, exist_ok=True)
            (volume / "given").write_text("by the engine")
            owner = rig.backend.file_owner
            assert owner is not None
            for path in (volume, volume / "given"):
                os.chown(path, owner, owner)
            code = """
                import os, json
                open("/data/made", "w").write("inside")
                open("/data/given", "a").write(", changed")
                print(json.dumps(open("/data/given").read()))
            """
            mounts = (Mount("volume", ".views/vo-1", "/data", read_only=False),)
            assert await rig.value_of(code, mounts=mounts) == "by the engine, changed"
            assert (volume / "made").stat().st_uid >= 65534
            assert (volume / "made").read_text() == "inside"

    run(test)


def test_the_walls_hold_without_setpriv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_uid_changer", lambda uid: ())

    async def test() -> None:
        async with open_rig("bubblewrap") as rig:
            check(await look(rig, resources=Resources(memory_limit=256, cpu_limit=1)))

    run(test)


ORDINARY = """
import json, sys
import anyio
from pathlib import Path
from minimodal.home import open_home
from tests.backends.rig import open_rig
from tests.backends.test_walls import check, look
async def main():
    home = open_home(sys.argv[1])
    async with open_rig("bubblewrap", home=home) as rig:
        check(await look(rig))
        found = await look(rig, block_network=True)
        check(found)
        assert found["interfaces"] == ["lo"], found["interfaces"]
        described = rig.backend.describe()
        if "address space" in described.memory:
            from minimodal.types import Resources
            small = Resources(memory_limit=300, pids_limit=40)
            code = '''
                import json, threading, time
                def f():
                    try:
                        bytearray(1 << 30)
                    except MemoryError:
                        return "MemoryError"
                try:
                    for _ in range(60):
                        threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
                except RuntimeError as error:
                    print(json.dumps([f(), str(error)]))
            '''
            got = await rig.value_of(code, resources=small)
            assert got == ["MemoryError", "can't start new thread"], got
        async with rig.launch(rig.python("import time; time.sleep(300)")) as container:
            await anyio.sleep(0.3)
            from tests.backends.rig import output_of
            code, out, err = await output_of(container, "sh", "-c", "id -u; grep CapEff /proc/self/status")
            assert (code, out) == (0, "1000\\nCapEff:\\t0000000000000000\\n"), (code, out, err)
    print("held")
anyio.run(main)
"""


def test_f102_f12_the_same_for_an_ordinary_user(tmp_path: Path, scratch: Path) -> None:
    python = _public_python()
    home = scratch / "nobody"
    home.mkdir()
    options: dict[str, Any] = {}
    if os.getuid() == 0:
        os.chown(home, NOBODY, NOBODY)
        scratch.chmod(0o755)
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), *(entry for entry in sys.path if entry)])
    environment = {**os.environ, "PYTHONPATH": path, "MINIMODAL_HOME": str(home / "h")}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    command = [python, "-c", ORDINARY, str(home / "h")]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd="/", timeout=50, **options
    )
    if "ModuleNotFoundError" in done.stderr or "PermissionError" in done.stderr:
        pytest.skip(f"an ordinary user cannot reach this checkout: {done.stderr.splitlines()[-1]}")
    assert done.stdout == "held\n", done.stderr


def _public_python() -> str:
    """An interpreter of our version that any user can run: root's own home is closed."""
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{minor}", f"/usr/local/bin/{minor}"):
        real = Path(candidate).resolve()
        closed = [p for p in real.parents if not p.stat().st_mode & 0o001]
        if real.is_file() and (os.getuid() != 0 or not closed):
            return candidate
    pytest.skip("no interpreter here that an ordinary user may run")
