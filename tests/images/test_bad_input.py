"""What cannot be built, on Docker and bubblewrap: the error names the step, its exit code and its tail."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from minimodal.errors import BuildError, InvalidError
from minimodal.image import Image
from tests.images import surface
from tests.images.lab import Lab


@pytest.fixture(autouse=True)
def leaves_nothing() -> None:
    """The platform is shared: what is left is counted at its end."""


FAILS: dict[str, tuple[Callable[[Image], Image], str]] = {
    "package": (
        lambda base: base.pip_install("no-such-package-of-ours"),
        r"step 3 of 3 failed with exit code 1: pip install no-such-package-of-ours\n.*not found",
    ),
    "conflict": (
        lambda base: base.pip_install("six==1.16.0", "six==1.15.0"),
        r"step 3 of 3 failed with exit code 1: pip install six==1.16.0 .*(conflict|unsatisfiable)",
    ),
    "command": (
        lambda base: base.run_commands("true", "echo the tail >&2; exit 7").run_commands("true"),
        r"step 3 of 4 failed with exit code 7: echo the tail.*\n    the tail\nSteps 1 to 2 are kept",
    ),
    "Dockerfile": (
        lambda base: base.dockerfile_commands("RUN true", "RUN echo the tail; exit 9"),
        r"step \d of \d failed with exit code 9: .*echo the tail; exit 9\n.*    the tail",
    ),
    "instruction": (
        lambda base: base.dockerfile_commands("RUN true", "HM 1"),
        r"(step 3 of 3 failed.*unknown instruction: HM|line 2 of the Dockerfile: HM)",
    ),
    "function": (
        lambda base: base.run_function(surface.broken),
        r"step 3 of 3 failed with exit code 1: run_function\(broken\)\n.*RuntimeError: the weights",
    ),
    "Python": (
        lambda base: Image.debian_slim("3.19"),
        r"step 1 of 1 failed: (no Python 3.19 was found|the engine has no image python:3.19-slim)",
    ),
}


@pytest.mark.parametrize("what", FAILS)
def test_a_step_that_fails(lab: Lab, what: str) -> None:
    image, words = FAILS[what]
    with pytest.raises(BuildError) as raised:
        lab.see(image(lab.base), "seen = 1")
    assert re.match(words, str(raised.value), re.DOTALL), raised.value
    if what == "command":
        with pytest.raises(BuildError):  # nothing half-built is found the second time
            lab.see(image(lab.base), "seen = 1")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (lambda base, path: base.add_local_file(path / "no", "/x", copy=True), "3 of 3"),
        (lambda base, path: base.add_local_file(path / "no", "/x"), "3 of 3"),
        (lambda base, path: base.add_local_dir(path / "no", "/x", copy=True), "3 of 3"),
        (lambda base, path: base.pip_install_from_requirements(path / "no"), "3 of 3"),
        (lambda base, path: Image.from_dockerfile(path / "no"), "1 of 1"),
    ],
)
def test_a_local_file_that_is_missing(
    lab: Lab, tmp_path: Path, image: Callable[[Image, Path], Image], words: str
) -> None:
    with pytest.raises(FileNotFoundError) as raised:
        lab.see(image(lab.base, tmp_path), "seen = 1")
    said = f"step {words} of the image: the local (file|directory) {tmp_path}/no does not exist"
    assert re.fullmatch(said, str(raised.value))


def test_a_project_that_is_none(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"step 3 of 3 of the image: uv_sync: .* does not exist"):
        lab.see(lab.base.uv_sync(str(tmp_path)), "seen = 1")
