"""The lowest layer of a bubblewrap image: an empty virtual environment of one of the host's Pythons.

So an image sees what was installed into it, and not what the host's user has installed for that
Python. Beside it are the host's users and groups, without passwords, so that a step can add some.
Made by writing a few files, without running anything.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from minimodal.backends.rootfs import prefixes_of
from minimodal.home import Home

from .layer_store import LayerStore, StoredLayer

ENVIRONMENT = "/opt/venv"
PYTHON = f"{ENVIRONMENT}/bin/python"
PATH = f"{ENVIRONMENT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_layer(home: Home, python: str, minor: str, give: Callable[[Path], Path]) -> StoredLayer:
    """The layer for the interpreter at `python` (no links), of version `minor`. Blocking.

    `give` makes a file that of the user that builds. Its meta: `interpreter`, and `prefixes`, the host's directories that the sandbox binds for it.
    """
    store = LayerStore(home)
    status = os.stat(python)
    key = f"base 2\0{python}\0{minor}\0{status.st_mtime_ns}\0{status.st_size}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    found = store.find(digest)
    if found is not None:
        return found
    with store.draft() as draft:
        write_environment(draft.upper("opt") / "venv", python, minor)
        write_accounts(draft.upper("etc"), give)
        meta = {"interpreter": python, "prefixes": prefixes_of(python), "step": f"Python {minor}"}
        return store.commit(draft, digest, None, meta)


def write_environment(path: Path, python: str, minor: str) -> None:
    """What `python -m venv --without-pip` makes, in a millisecond."""
    binaries = path / "bin"
    (path / "lib" / f"python{minor}" / "site-packages").mkdir(parents=True)
    binaries.mkdir()
    (path / "lib64").symlink_to("lib")
    (binaries / "python").symlink_to(python)
    for name in ("python3", f"python{minor}"):
        (binaries / name).symlink_to("python")
    (path / "pyvenv.cfg").write_text(
        f"home = {os.path.dirname(python)}\n"
        "include-system-site-packages = false\n"
        f"version = {minor}\n"
        f"executable = {python}\n"
    )


def write_accounts(etc: Path, give: Callable[[Path], Path]) -> None:
    """The host's users and groups. The files of their passwords cannot be read in a sandbox, and
    programs that add users want to."""
    for public, secret, rest in (
        ("passwd", "shadow", ":*:19000:0:99999:7:::"),
        ("group", "gshadow", ":*::"),
    ):
        entries = [line for line in Path("/etc", public).read_text().splitlines() if ":" in line]
        names = [entry.partition(":")[0] for entry in entries]
        for name, lines, mode in (
            (public, entries, 0o644),
            (secret, [name + rest for name in names], 0o640),
            (f"{secret}-", [], 0o640),  # what those programs keep a copy in
        ):
            (etc / name).write_text("".join(f"{line}\n" for line in lines))
            (etc / name).chmod(mode)
            give(etc / name)
