"""The lowest layer of a bubblewrap image: an empty virtual environment of one of the host's Pythons.

So an image sees what was installed into it, and not what the host's user has installed for that
Python. Made by writing three files, without running anything.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from minimodal.backends.rootfs import prefixes_of
from minimodal.home import Home

from .layer_store import LayerStore, StoredLayer

ENVIRONMENT = "/opt/venv"
PYTHON = f"{ENVIRONMENT}/bin/python"
PATH = f"{ENVIRONMENT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base_layer(home: Home, python: str, minor: str) -> StoredLayer:
    """The layer for the interpreter at `python` (no links), of version `minor`. Blocking.

    Its meta: `interpreter`, and `prefixes`, the host's directories that the sandbox binds for it.
    """
    store = LayerStore(home)
    status = os.stat(python)
    key = f"base 1\0{python}\0{minor}\0{status.st_mtime_ns}\0{status.st_size}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    found = store.find(digest)
    if found is not None:
        return found
    with store.draft() as draft:
        write_environment(draft.upper("opt") / "venv", python, minor)
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
