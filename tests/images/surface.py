"""The user's script of test_surface.py: what looks around in a container, and what builds run."""

from __future__ import annotations

import os
from typing import Any

import minimodal

imported = minimodal.Image.debian_slim().pip_install("six")
with imported.imports():
    import six


def look(code: str) -> Any:
    """The value of `seen` after `code` has run in the container."""
    names: dict[str, Any] = {}
    exec(code, names)
    return names["seen"]


def version_of_six() -> str:
    return str(six.__version__)


def make_model(name: str, size: int = 1) -> None:
    """For run_function: writes what it was given, what its secret says, and what its volume has."""
    os.makedirs("/models", exist_ok=True)
    weights = "/weights/base.txt"
    words = [name * size, os.environ.get("TOKEN", "")]
    if os.path.exists(weights):
        with open(weights) as file:
            words.append(file.read())
        with open("/weights/made.txt", "w") as file:
            file.write(f"from {name}")
    with open("/models/model.txt", "w") as file:
        file.write("|".join(words))


def broken() -> None:
    raise RuntimeError("the weights are gone")
