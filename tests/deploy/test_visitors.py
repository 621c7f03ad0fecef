"""Other processes use a running engine through its socket."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import minimodal
from minimodal import context, wire
from minimodal.config import load_config
from minimodal.connection import Connection
from minimodal.errors import NotFoundError, NotRunningError
from minimodal.home import Home
from minimodal.host import Host
from minimodal.types import Payload
from minimodal.wire import Decoder, Frame, Kind, encode
from tests.deploy import functions
from tests.deploy.program import python

USE = """
import sys, minimodal
double = minimodal.Function.from_name("shop", "double")
print(double.remote(21))
print(sorted(double.map([1, 2, 3])))
print(list(minimodal.Function.from_name("shop", "numbers").remote_gen(3)))
print(minimodal.Cls.from_name("shop", "Counter")(start=7).up.remote(1))
call = double.spawn(4)
print(call.get(), minimodal.FunctionCall.from_id(call.object_id).get())
from minimodal import context
print(context.running_client() is not None)
"""

ATTACHED = """
import sys, threading, minimodal
wait_for = minimodal.Function.from_name("shop", "wait_for")
print(wait_for.spawn(sys.argv[1], sys.argv[2]).object_id, flush=True)
threading.Thread(target=lambda: list(wait_for.map([sys.argv[1]] * 3, [sys.argv[2]] * 3))).start()
"""


@pytest.fixture
def host(own_home: Path) -> Iterator[Host]:
    with Host(load_config({"backend": "process", "home": own_home})) as host:
        functions.app.deploy()
        yield host


def test_another_process_uses_what_is_deployed_here(host: Host, own_home: Path) -> None:
    process = python(own_home, USE)
    output, _ = process.communicate(timeout=50)
    assert output.split("\n") == ["42", "[2, 4, 6]", "[0, 1, 2]", "8", "8 8", "False", ""]


def test_f43_what_a_dead_client_waited_for_is_cancelled_and_what_it_spawned_goes_on(
    host: Host, own_home: Path, tmp_path: Path
) -> None:
    gate, marks = tmp_path / "gate", tmp_path / "marks"
    process = python(own_home, ATTACHED, str(gate), str(marks))
    assert process.stdout is not None
    call_id = process.stdout.readline().strip()
    while not marks.exists() or len(marks.read_text().split()) < 2:
        time.sleep(0.01)  # functions in containers speak through a file
    process.kill()
    process.communicate()
    died = time.monotonic()
    stats = functions.wait_for.get_current_stats()
    while stats.num_running_inputs > 1 or stats.backlog:
        stats = functions.wait_for.get_current_stats()
        assert time.monotonic() - died < 15, stats  # on a busy machine
    gate.touch()
    assert minimodal.FunctionCall.from_id(call_id).get(timeout=30) == str(gate)


def test_the_socket_is_for_its_owner_alone(host: Host, opened: Home) -> None:
    path = opened.engines / f"{host.engine.id}.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be somebody else")
def test_a_process_of_another_user_is_cut_off(host: Host, opened: Home) -> None:
    path = opened.engines / f"{host.engine.id}.sock"
    code = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setuid(65534);"
        "s.connect(sys.argv[1]); print(s.recv(1))"
    )
    folders = path.parents[:4]  # up to the scratch directory
    for folder in folders:
        folder.chmod(0o711)
    path.chmod(0o666)  # what a system that ignores modes would do
    try:
        command = [sys.executable, "-c", code, str(path)]
        said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    finally:
        for folder in folders:
            folder.chmod(0o700)
    assert said.stdout.strip() == "b''", said.stderr


def test_f105_a_client_of_another_version_is_told_both(host: Host, opened: Home) -> None:
    frames: list[Frame] = []
    decoder = Decoder(frames.append)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(opened.engines / f"{host.engine.id}.sock"))
        hello = {"role": "client", "version": wire.VERSION + 1}
        for part in encode(Kind.HELLO, 0, json.dumps(hello)):
            sock.sendall(part)
        while data := sock.recv(4096):
            decoder.feed(data)
    [refused] = frames
    assert refused.kind is Kind.REFUSED
    assert f"version {wire.VERSION + 1}, this engine {wire.VERSION}" in refused.meta


def test_a_client_is_told_when_its_engine_has_gone(own_home: Path) -> None:
    answers: list[object] = []
    with Host(load_config({"backend": "process", "home": own_home})) as host:
        path = own_home / "run" / "engines" / f"{host.engine.id}.sock"
        client = Connection(str(path))
        assert client.is_alive()
        client.ask("event.list", {"timeout": 50}, Payload(b""), answers.append)
    assert not client.is_alive()
    assert isinstance(answers[0], minimodal.Error)
    with pytest.raises(NotRunningError, match="minimodal up"):
        client.ask("engine.info", {}, Payload(b""), answers.append)
    assert not path.exists()


def test_what_nobody_has_is_not_found(host: Host) -> None:
    with pytest.raises(NotFoundError, match="nothing"):
        minimodal.Function.from_name("shop", "nothing").remote()
    with pytest.raises(NotFoundError, match="nowhere"):
        minimodal.Function.from_name("nowhere", "nothing").remote()


def test_a_deployed_app_that_nobody_hosts_is_hosted_by_who_looks_it_up(own_home: Path) -> None:
    config = load_config({"backend": "process", "home": own_home})
    with Host(config):
        functions.app.deploy()
    with Host(config):
        assert minimodal.Function.from_name("shop", "double").remote(3) == 6
        assert context.running_client() is not None
