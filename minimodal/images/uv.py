"""uv: where its binary is, and the commands that install into an environment. Pure but for finding the
binary."""

from __future__ import annotations

import shlex
import shutil
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from minimodal.errors import RuntimeUnavailable
from minimodal.layers import PipInstall, UvSync

PLAIN = ("--no-progress", "--color", "never")
COMPILED = "--compile-bytecode"  # as pip does: a container could not keep what it compiles


@cache
def find_uv() -> str:
    """The uv that is installed beside minimodal, else the one on PATH."""
    found: str | None
    try:
        import uv

        found = uv.find_uv_bin()
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
    if not found:
        raise RuntimeUnavailable(
            "uv, which installs the packages of images, is not on this machine. Install it with: "
            "pip install uv"
        )
    return found


def pip_install(uv: str, layer: PipInstall, python: str, staged: str) -> list[str]:
    """`staged`: the directory in which the requirement files lie."""
    command = [uv, "pip", "install", *PLAIN, "--python", python]
    for option, value in (
        ("--default-index", layer.index_url),
        ("--index", layer.extra_index_url),
        ("--find-links", layer.find_links),
    ):
        for word in (value or "").split():
            command += [option, word]
    if layer.extra_index_url:
        # As pip does: the best version of all indexes, not the first index that has the package.
        command += ["--index-strategy", "unsafe-best-match"]
    if layer.pre:
        command += ["--prerelease", "allow"]
    for file in layer.requirements:
        command += ["-r", f"{staged}{file.target}"]
    return [*command, *_options(layer.extra_options), *layer.packages]


def shown(layer: PipInstall) -> str:
    """The installation as errors name it: what, and from which index of the layer's own."""
    files = [Path(file.target).name for file in layer.requirements]
    words = ["pip install", *(f"-r {name}" for name in files), *layer.packages]
    named = " ".join(filter(None, (layer.index_url, layer.extra_index_url, layer.find_links)))
    hosts = dict.fromkeys(urlsplit(url).netloc.rpartition("@")[2] for url in named.split())
    known = [host for host in hosts if host]  # a URL's user and password are nobody's business
    return " ".join(words) + (f" (from {', '.join(known)})" if known else "")


def sync(uv: str, layer: UvSync, python: str, staged: str) -> list[str]:
    """The project's dependencies only; what the environment has besides stays."""
    command = [uv, "sync", *PLAIN, "--project", staged, "--python", python]
    command += ["--no-install-project", "--inexact", "--no-python-downloads"]
    command += ["--frozen"] if layer.frozen else []
    for option, values in (("--group", layer.groups), ("--extra", layer.extras)):
        command += [word for value in values for word in (option, value)]
    return [*command, *_options(layer.extra_options)]


def _options(text: str) -> list[str]:
    return shlex.split(text)
