"""F75 to F77: what may never show a secret, what a bad key does, and tricks with the environment."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from minimodal import Secret
from minimodal.config import load_config
from minimodal.engine.secret_files import SecretFiles
from minimodal.errors import InvalidError, StateError
from minimodal.home import Home, open_home
from minimodal.host import Host
from tests.needs import docker_json
from tests.objects import functions as f

ASCII_PART = b"canary-7f3a"  # of functions.CANARY; everything is searched for it


@pytest.fixture
def running(backend: str, own_home: Home, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setenv("MINIMODAL_HOME", str(own_home.data.parent))
    with Host(load_config({"backend": backend})) as host:
        Secret.from_name("stored").set({"STORED": f.CANARY})
        with f.app.run():
            yield host


# --- F75: leaks -----------------------------------------------------------------------------------


def test_f75_no_leak_anywhere(running: Host, backend: str, own_home: Home) -> None:
    call = f.holds.spawn("x")
    f.started.get(timeout=30)
    try:
        assert in_processes() == []
        if backend == "docker":
            assert ASCII_PART not in in_docker()
    finally:
        f.release.put(1)
    assert call.get() == 1
    f.prints.remote()
    with pytest.raises(ValueError, match="the token is"):
        f.fails.remote()
    failed = f.fails.spawn()  # on record, with its input and its failure, as a dead letter
    with pytest.raises(ValueError, match="the token is"):
        failed.get()
    assert in_files(own_home) == []
    events = json.dumps([e.fields for e in running.engine.events.since(0)], default=str)
    assert ASCII_PART.decode() not in events
    assert ASCII_PART.decode() not in repr(list(running.engine.calls.values()))


def in_files(home: Home) -> list[str]:
    """Database, its log, deployments, the secrets' own files: all that the home holds."""
    everything = home.data.parent.rglob("*")
    whole = [path for path in everything if path.is_file() and not path.is_symlink()]
    # The user's own source is snapshotted, and this test's secret is written in it.
    ours = [path for path in whole if home.sources not in path.parents]
    return [str(path) for path in ours if ASCII_PART in path.read_bytes()]


def in_processes() -> list[str]:
    """Command lines and initial environments of all processes."""
    found = []
    for name in (*glob.glob("/proc/[0-9]*/cmdline"), *glob.glob("/proc/[0-9]*/environ")):
        try:
            if ASCII_PART in Path(name).read_bytes():
                found.append(name)
        except OSError:
            pass  # it ended, or is not ours to look at
    return found


def in_docker() -> bytes:
    ids = docker_json('/containers/json?all=1&filters={"label":["minimodal.engine"]}')
    assert ids
    inspected = [docker_json(f"/containers/{each['Id']}/json") for each in ids]
    history = [docker_json(f"/images/{each['ImageID']}/history") for each in ids]
    return json.dumps([inspected, history]).encode()


# --- F76: the key ---------------------------------------------------------------------------------


@pytest.fixture
def filled(own_home: Home) -> SecretFiles:
    files = SecretFiles(own_home, {})
    for number in range(3):
        files.set(f"s{number}", {"VALUE": str(number)})
    return files


def everything(home: Home) -> dict[str, str]:
    files = SecretFiles(home, {})
    return {str(each.name): files.read(each.id)["VALUE"] for each in files.list()}


WHOLE = {"s0": "0", "s1": "1", "s2": "2"}


def test_f76_key_file_is_private(filled: SecretFiles, own_home: Home) -> None:
    assert own_home.key_file.stat().st_mode & 0o777 == 0o600
    own_home.key_file.chmod(0o644)
    with pytest.raises(StateError, match=f"chmod 600 {own_home.key_file}"):
        everything(own_home)
    own_home.key_file.chmod(0o600)
    assert everything(own_home) == WHOLE


def test_f76_key_file_missing(filled: SecretFiles, own_home: Home) -> None:
    own_home.key_file.unlink()
    with pytest.raises(StateError, match="is missing"):
        everything(own_home)
    with pytest.raises(StateError, match="is missing"):
        filled.set("another", {"A": "1"})
    assert not own_home.key_file.exists(), "a new key would make the loss final"


def test_f76_key_file_of_another_home(filled: SecretFiles, own_home: Home) -> None:
    other = open_home(own_home.data / "other")
    SecretFiles(other, {}).set("x", {"A": "1"})
    own_home.key_file.write_bytes(other.key_file.read_bytes())
    with pytest.raises(StateError, match="another key"):
        everything(own_home)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff\xfe"])
def test_f76_key_file_damaged(filled: SecretFiles, own_home: Home, content: bytes) -> None:
    own_home.key_file.write_bytes(content)
    with pytest.raises(StateError, match=r"no key"):
        everything(own_home)


def test_f76_secret_damaged(filled: SecretFiles, own_home: Home) -> None:
    path = own_home.secrets / f"{filled.find('s1').id}.json"
    fields = json.loads(path.read_text())
    other = json.loads((own_home.secrets / f"{filled.find('s2').id}.json").read_text())
    path.write_text(json.dumps({**fields, "box": other["box"]}))
    with pytest.raises(StateError, match="another one's contents"):
        everything(own_home)
    flipped = ("B" if fields["box"][40] == "A" else "A").join(
        (fields["box"][:40], fields["box"][41:])
    )
    path.write_text(json.dumps({**fields, "box": flipped}))
    with pytest.raises(StateError, match="s1 is damaged"):
        everything(own_home)


ROTATE = """
from minimodal.engine.secret_files import SecretFiles
from minimodal.home import open_home
SecretFiles(open_home(), {}).rotate()
"""


def test_f76_killed_at_each_step_of_a_rotation(filled: SecretFiles, own_home: Home) -> None:
    keys = set()
    for step in range(1, 20):
        env = {
            **os.environ,
            "MINIMODAL_HOME": str(own_home.data.parent),
            "MINIMODAL_FAILPOINTS": f"*=kill@{step}",
        }
        code = subprocess.run([sys.executable, "-c", ROTATE], env=env, timeout=30).returncode
        assert everything(own_home) == WHOLE, f"after a kill at step {step}"
        keys.add(own_home.key_file.read_bytes())
        if code == 0:
            break
    else:
        pytest.fail("no rotation came to its end")
    assert step > 5, "there are steps to be killed at"
    assert len(keys) > 2
    assert everything(own_home) == WHOLE
    assert own_home.key_file.read_bytes().count(b"\n") == 1, "the old keys are gone"


def test_f76_a_start_goes_on_with_a_rotation(filled: SecretFiles, own_home: Home) -> None:
    env = {**os.environ, "MINIMODAL_HOME": str(own_home.data.parent)}
    env["MINIMODAL_FAILPOINTS"] = "secrets.rotate.added=kill"
    subprocess.run([sys.executable, "-c", ROTATE], env=env, timeout=30)
    assert own_home.key_file.read_bytes().count(b"\n") == 2
    with Host(load_config({"backend": "process", "home": own_home.data.parent})):
        assert own_home.key_file.read_bytes().count(b"\n") == 1
    assert everything(own_home) == WHOLE


def test_f76_a_bad_key_does_not_keep_an_engine_from_starting(
    filled: SecretFiles, own_home: Home
) -> None:
    own_home.key_file.chmod(0o644)
    with Host(load_config({"backend": "process", "home": own_home.data.parent})):
        with pytest.raises(StateError, match="chmod 600"):
            Secret.from_dict({"A": "1"}).hydrate()


# --- F77: environment tricks ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", "A=B", "=", "with space", "nul\0", "new\nline", "MINIMODAL_SOURCES_DIR"]
)
def test_f77_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidError, match=r"Secret\.from_dict"):
        Secret.from_dict({name: "x"})


def test_f77_values_that_are_refused() -> None:
    with pytest.raises(InvalidError, match="NUL"):
        Secret.from_dict({"A": "a\0b"})
    with pytest.raises(InvalidError, match="100 KiB"):
        Secret.from_dict({"A": "x" * (100 * 1024 + 1)})


def test_f77_tricks_reach_user_code_only(running: Host) -> None:
    assert f.tricked.remote() == ["/nowhere", "/nowhere", "/nowhere.so", "a\nb"]
    assert f.tricked.remote() is not None, "its supervisor goes on"
