"""Runs `Image.run_function` inside a build: the command, and the small program that it starts.

The program is given to the image's own interpreter; it uses the standard library, and cloudpickle
only where the function travels by value.
"""

from __future__ import annotations

import sys
from pathlib import Path

from minimodal.errors import PythonMismatch
from minimodal.home import Home
from minimodal.layers import RunFunction

from .build import StepFailed

PROGRAM = """
import importlib, os, pickle, sys
paths, blob, module, name = sys.argv[1].split(os.pathsep), *sys.argv[2:5]
sys.path[:0] = [p for p in paths if p]
with open(blob, "rb") as file:
    loaded = pickle.load(file)
if module:
    function, (args, kwargs) = importlib.import_module(module), loaded
    for part in name.split("."):
        function = getattr(function, part)
    function = getattr(function, "raw", function)
else:
    function, args, kwargs = loaded
function(*args, **kwargs)
"""


def run_function_command(layer: RunFunction, python: str, paths: str, blob: str) -> list[str]:
    """`paths` (for sys.path) and `blob` are where the build sees them."""
    return [python, "-c", PROGRAM, paths, blob, layer.module, layer.name]


def inputs_of(home: Home, layer: RunFunction) -> tuple[Path, Path | None]:
    """The pickle and the source snapshot on this machine. Raises StepFailed if they were not kept."""
    if not layer.blob:
        raise StepFailed(
            "run_function: the image was resolved without a home to keep its pickle in"
        )
    blob = home.blobs / layer.blob
    sources = home.sources / layer.sources if layer.sources else None
    for path in (blob, sources):
        if path is not None and not path.exists():
            raise StepFailed(f"run_function({layer.name}): {path} is gone")
    return blob, sources


def check_python(layer: RunFunction, wanted: str | None) -> None:
    """A function by value runs on the Python minor version that pickled it, on no other."""
    image = wanted or f"{sys.version_info[0]}.{sys.version_info[1]}"
    if layer.python and layer.python != image:
        raise PythonMismatch(
            f"run_function({layer.name}): it travels by value, pickled by Python {layer.python}, and "
            f"the image has {image}. Move it to the top of a module file, so that it goes by name."
        )
