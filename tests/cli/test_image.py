"""`minimodal image`, as the program: from building to pruning, on Docker and in bubblewrap."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Program, Result, started

SCRIPT = """
import time
app = minimodal.App("images")
image = minimodal.Image.debian_slim().env(UNIQUE="{unique}").run_commands("echo one > /tmp-one")
@app.function(image=image.run_commands("echo two > /two"))
def two(): ...
@app.function(image=image)
def wait():
    print("runs", flush=True)
    time.sleep(600)
@app.local_entrypoint()
def main():
    wait.remote()
"""

BACKENDS = [
    pytest.param("bubblewrap", marks=pytest.mark.bubblewrap),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture
def own_home(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    directory = tempfile.mkdtemp(prefix="h", dir=scratch)
    monkeypatch.setenv("MINIMODAL_HOME", directory)
    yield Path(directory)
    shutil.rmtree(directory)


def said(result: Result) -> Any:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.timeout(170)
@pytest.mark.parametrize("backend", BACKENDS)
def test_from_build_to_prune(
    own_home: Path, program: Program, script: Callable[[str, str], Path], backend: str
) -> None:
    path = script("job.py", SCRIPT.format(unique=os.urandom(8).hex()))

    def image(command: str, *arguments: str) -> Any:
        return said(program("image", command, *arguments, "--backend", backend, "--json"))

    built = image("build", str(path))["images"]
    assert [row["functions"] for row in built] == [["two"], ["wait"]]
    (top,) = image("ls")["images"]
    assert top["digest"] == built[0]["digest"] or backend == "bubblewrap"
    assert (top["backend"], top["in_use"]) == (backend, False)
    assert top["step"] == "run_commands echo two > /two"
    chain = image("inspect", top["digest"][:10])["chain"]
    assert [row["layers"] for row in chain] == [1, 2, 3]
    assert chain[-1]["total_bytes"] >= chain[1]["size_bytes"] > 0
    middle = chain[1]["digest"]
    refused = program("image", "rm", middle, "--backend", backend)
    assert refused.returncode == 1
    assert f"layer {middle[:12]} is part of {top['digest'][:12]}" in refused.stderr

    with started(path, MINIMODAL_BACKEND=backend) as process:
        assert process.stdout is not None
        assert "runs" in process.stdout.readline()
        assert [r["in_use"] for r in image("inspect", middle)["chain"]][-1] is True
        removed = image("prune", "--yes")["removed"]
        assert top["digest"] in removed
        assert middle not in removed
        refused = program("image", "rm", middle, "--backend", backend)
        assert "is in use: a container runs with it" in refused.stderr
        assert refused.returncode == 1
        process.terminate()
        process.wait()

    assert image("prune", "--older-than", "1h", "--yes")["removed"] == []
    assert image("prune", "--keep", "1", "--yes")["removed"] == []
    unsure = program("image", "prune", "--backend", backend)
    assert (unsure.returncode, "--yes" in unsure.stderr) == (2, True)
    assert middle in image("rm", middle)["removed"]
    assert image("ls")["images"] == []


def test_listing_for_people(
    own_home: Path, program: Program, script: Callable[[str, str], Path]
) -> None:
    nothing = program("image", "ls", "--backend", "process")
    assert nothing.stderr == "no image was built here\n"
    path = script("job.py", "app = minimodal.App()\n@app.function()\ndef f(): ...\n")
    assert program("image", "build", str(path), "--backend", "process").returncode == 0
    head, row = program("image", "ls", "--backend", "process").stdout.splitlines()
    assert head.split() == "IMAGE BACKEND SIZE LAYERS LAST USED IN USE LAST STEP".split()
    assert re.match(r"\w{12}  process +[\d.]+ kB  1 ", row)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "zz"], 1, "there is no image 'zz' here; `minimodal image ls` lists them"),
        (["rm"], 2, "the following arguments are required: digest"),
        (["prune", "--keep", "-1"], 2, "--keep is a number of images"),
        (["prune", "--older-than", "soon"], 2, "'soon' is no time"),
        (["build", "nowhere.py"], 2, "nowhere.py"),
        (["lst"], 2, "minimodal image ls"),
    ],
)
def test_what_cannot_be_is_refused(
    own_home: Path, program: Program, arguments: list[str], code: int, words: str
) -> None:
    done = program("image", *arguments)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


def test_a_failing_build_says_which_step(
    own_home: Path, program: Program, script: Callable[[str, str], Path]
) -> None:
    image = 'minimodal.Image.debian_slim().run_commands("python -c 1", "python -c 1/0")'
    path = script("bad.py", f"app = minimodal.App()\n@app.function(image={image})\ndef f(): ...\n")
    done = program("image", "build", str(path), "--backend", "process")
    assert done.returncode == 1
    assert "step 2 of 2 failed with exit code 1: python -c 1/0" in done.stderr
    assert "ZeroDivisionError" in done.stderr
