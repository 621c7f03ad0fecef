"""A sandbox's life: how it starts, what ends it, and how one finds it."""

from __future__ import annotations

import io
import pickle
import time
from pathlib import Path

import pytest

import minimodal
from minimodal import App, Image, Sandbox, Secret, Volume
from minimodal.config import load_config
from minimodal.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    LaunchError,
    NotFoundError,
    ResourceExhaustedError,
    SandboxTerminatedError,
    SandboxTimeoutError,
)
from minimodal.host import Host


def test_its_command_runs_and_ends_it() -> None:
    box = Sandbox.create("python3", "-c", "print(input()); print('é'); raise SystemExit(3)")
    assert box.returncode is None
    box.stdin.write("first\n")
    box.stdin.write_eof()
    box.stdin.drain()
    assert list(box.stdout) == ["first\n", "é\n"]
    box.wait()
    assert (box.returncode, box.poll(), box.stderr.read()) == (3, 3, "")
    with pytest.raises(SandboxTerminatedError, match="its command has ended"):
        box.exec("true")


def test_one_that_does_not_start_says_so_without_a_traceback_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ends = ("python3", "-c", "raise SystemExit(4)")
    monkeypatch.setattr("minimodal.backends.inner_tool.keeper", lambda python: ends)
    with pytest.raises(LaunchError, match="its container ended: it exited with code 4"):
        Sandbox.create()
    assert "Traceback" not in caplog.text


def test_output_that_nobody_has_read_is_there_after_the_end() -> None:
    box = Sandbox.create("sh", "-c", "echo out; echo err >&2")
    box.wait()
    assert (box.stdout.read(), box.stderr.read(), box.stdout.read()) == ("out\n", "err\n", "")


def test_the_environment_and_secrets_reach_its_command_and_processes(host: Host) -> None:
    secret = Secret.from_dict({"TOKEN": "s3cr3t", "BOTH": "secret"})
    box = Sandbox.create(env={"PLAIN": "a", "BOTH": "env"}, secrets=[secret], workdir="/tmp")
    show = "echo $TOKEN $PLAIN $BOTH $MORE $MINIMODAL_SANDBOX_ID; pwd"
    more = {"MORE": "b"}
    assert (
        box.exec("sh", "-c", show, env=more).stdout.read()
        == f"s3cr3t a env b {box.object_id}\n/tmp\n"
    )
    box.terminate()


def test_a_program_that_is_not_there_ends_it_as_a_shell_would() -> None:
    box = Sandbox.create("no-such-program")
    box.wait()
    assert box.returncode in (126, 127)


def test_terminate() -> None:
    box = Sandbox.create("sleep", "600")
    assert box.poll() is None
    process = box.exec("sleep", "600")
    box.terminate()
    assert box.poll() == 137
    assert process.wait() != 0
    box.terminate()  # once more is no error
    box.wait(raise_on_termination=False)
    with pytest.raises(SandboxTerminatedError, match="it was terminated"):
        box.wait()


def test_its_time_is_over() -> None:
    box = Sandbox.create(timeout=1)
    with pytest.raises(SandboxTimeoutError, match="1 s"):
        box.wait()
    assert box.returncode == 124


def test_an_idle_one_ends_and_a_busy_one_does_not() -> None:
    box = Sandbox.create(timeout=60, idle_timeout=0.4)
    busy = box.exec("sleep", "1")
    assert busy.wait() == 0  # more than twice its idle time
    with pytest.raises(SandboxTerminatedError, match="nobody used it for"):
        box.wait()


def test_names_are_of_one_app_and_free_again_at_the_end() -> None:
    one, other = App("sandbox-names"), App("sandbox-names-2")
    with one.run(), other.run():
        box = Sandbox.create(app=one, name="it", tags={"a": "1", "b": "2"})
        with pytest.raises(AlreadyExistsError, match="'it'"):
            Sandbox.create(app=one, name="it")
        twin = Sandbox.create(app=other, name="it", tags={"a": "1"})
        assert Sandbox.from_name("sandbox-names", "it").object_id == box.object_id
        assert [each.object_id for each in Sandbox.list(app_id=other.app_id)] == [twin.object_id]
        assert [e.object_id for e in Sandbox.list(tags={"a": "1"})] == [
            twin.object_id,
            box.object_id,
        ]
        assert [e.object_id for e in Sandbox.list(tags={"b": "2"})] == [box.object_id]
        box.set_tags({"c": "3"})
        assert (box.get_tags(), Sandbox.list(tags={"b": "2"})) == ({"c": "3"}, [])
        box.terminate()
        with pytest.raises(NotFoundError):
            Sandbox.from_name("sandbox-names", "it")
        again = Sandbox.create(app=one, name="it")
    assert again.poll() == 137  # closing an app ends its sandboxes


def test_a_handle_is_an_id() -> None:
    box = Sandbox.create()
    same = pickle.loads(pickle.dumps(box))
    assert same.exec("echo", "here").stdout.read() == "here\n"
    Sandbox.from_id(box.object_id).terminate()
    assert same.poll() == 137


async def _async_face() -> str:
    box = await Sandbox.create.aio("cat")
    box.stdin.write(b"abc\ndef")
    box.stdin.write_eof()
    await box.stdin.drain.aio()
    lines = [line async for line in box.stdout]
    await box.wait.aio()
    return "|".join(lines)


def test_the_asynchronous_face() -> None:
    import anyio

    assert anyio.run(_async_face) == "abc\n|def"


def test_the_images_command_is_the_default(backend: str) -> None:
    if backend == "process":
        pytest.skip("plain processes build no such image")
    box = Sandbox.create(image=Image.debian_slim().cmd(["echo", "by default"]))
    assert box.stdout.read() == "by default\n"


def test_a_sandbox_is_not_larger_than_the_machine(host: Host) -> None:
    with pytest.raises(ResourceExhaustedError, match="at most"):
        Sandbox.create(cpu=10_000)
    cores = host.engine.planner.nodes[0].cpu
    box = Sandbox.create(cpu=cores - 0.5)
    with pytest.raises(ResourceExhaustedError, match="others run"):
        Sandbox.create(cpu=1)
    box.terminate()
    Sandbox.create(cpu=1).terminate()


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((1,), {}, "as texts"),
        (("a\0b",), {}, "as texts"),
        ((), {"workdir": "relative"}, "absolute"),
        ((), {"timeout": 0}, "at least 1"),
        ((), {"idle_timeout": -1}, "above 0"),
        ((), {"unencrypted_ports": [70000]}, "65535"),
        ((), {"memory": "much"}, "number"),
        ((), {"cidr_allowlist": []}, "no option 'cidr_allowlist'"),
        ((), {"env": {"A": 1}}, "string"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[object, ...], options: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidError, match=words):
        Sandbox.create(*arguments, **options)  # type: ignore[arg-type]  # on purpose


def test_ids_that_never_were() -> None:
    with pytest.raises(NotFoundError):
        Sandbox.from_id("sb-never")
    with pytest.raises(InvalidError, match="sb-"):
        Sandbox.from_id("fc-1")


def test_a_volume_in_a_sandbox(backend: str) -> None:
    if backend == "process":
        with Volume.ephemeral() as volume, pytest.raises(ConflictError, match="--backend docker"):
            Sandbox.create(volumes={"/data": volume})
        return
    with Volume.ephemeral() as volume:
        volume.put_file(io.BytesIO(b"from here\n"), "in")
        box = Sandbox.create(volumes={"/data": volume})
        assert (
            box.exec("sh", "-c", "cat /data/in; echo there > /data/out").stdout.read()
            == "from here\n"
        )
        volume.put_file(io.BytesIO(b"later\n"), "later")
        box.reload_volumes()
        assert b"".join(volume.read_file("out")) == b"there\n"
        said = box.exec("sh", "-c", "cat /data/later; echo end > /data/end").stdout.read()
        assert said == "later\n"
        box.terminate()  # what it wrote is committed when it has ended
        assert b"".join(volume.read_file("end")) == b"end\n"
        with pytest.raises(SandboxTerminatedError):
            box.reload_volumes()


def test_a_sandbox_does_not_outlive_its_engine(scratch: Path) -> None:
    settings = load_config({"backend": "process", "home": scratch / "boxes"})
    with Host(settings):
        box = Sandbox.create()
    with Host(settings), pytest.raises(NotFoundError, match=box.object_id):
        Sandbox.from_id(box.object_id)


def test_start_does_not_wait_for_the_end() -> None:
    began = time.monotonic()
    box = Sandbox.create("sleep", "600")
    assert time.monotonic() - began < 30
    box.terminate()
    assert minimodal.is_local()
