"""A Dockerfile through the engine's classic builder: its context, its output, the step that failed."""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread

from minimodal.backends.docker_api import DockerApi
from minimodal.backends.docker_requests import DockerFailure
from minimodal.layers import Dockerfile, LocalFile
from minimodal.protocols import Report

from .build import StepFailed
from .docker_files import archive
from .running import TAIL_LINES
from .settings import Settings

NAME = ".minimodal.Dockerfile"  # the context may hold a Dockerfile of its own


async def build_dockerfile(
    api: DockerApi,
    layer: Dockerfile,
    directory: Path,
    *,
    parent: str | None,
    settings: Settings,
    tag: str,
    env: Mapping[str, str],
    report: Report,
) -> None:
    """Build and tag. `env`: proxies, which the builder knows as arguments and leaves out of history.

    Raises StepFailed that names the instruction.
    """
    text = dockerfile_text(layer, parent, settings)
    (directory / NAME).write_text(text)  # a few lines
    args = {**env, **dict(layer.env), **dict(layer.build_args)}
    packing = archive((*layer.context, _own_file(directory / NAME, text)), directory)
    packed = await to_thread.run_sync(packing.__enter__)
    kept: deque[str] = deque(maxlen=TAIL_LINES)
    instruction = "Dockerfile"
    try:
        async for record in api.build(packed, dockerfile=NAME, tag=tag, args=args):
            for line in str(record.get("stream", "")).splitlines():
                if line.startswith("Step ") and " : " in line:
                    instruction = line.partition(" : ")[2]
                if line.strip():
                    kept.append(line)
                    report(line)
    except DockerFailure as error:
        if error.status == 0:
            raise
        what = instruction if error.code is not None else f"{instruction}: {error}"
        raise StepFailed(what, error.code, "\n".join(kept)) from error
    finally:
        await to_thread.run_sync(packing.__exit__, None, None, None)


def dockerfile_text(layer: Dockerfile, parent: str | None, settings: Settings) -> str:
    """The whole Dockerfile. On a parent: its settings, which are not in the parent's image, and the
    step's variables declared where they are used."""
    if parent is None:
        return layer.text
    lines = [f"FROM {parent}"]
    lines += [f"ENV {name}={_quoted(value)}" for name, value in settings.env.items()]
    if settings.workdir:
        lines.append(f"WORKDIR {_quoted(settings.workdir)}")
    lines += [f"ARG {name}" for name, _ in (*layer.env, *layer.build_args)]
    return "\n".join([*lines, layer.text, ""])


def _quoted(value: str) -> str:
    for sign in ("\\", '"', "$"):
        value = value.replace(sign, f"\\{sign}")
    return re.sub(
        r"\\(\$(?:PATH\b|\{PATH\}))", r"\1", f'"{value}"'
    )  # the parent's, which Docker knows


def _own_file(path: Path, text: str) -> LocalFile:
    return LocalFile(f"/{NAME}", hashlib.sha256(text.encode()).hexdigest(), str(path))
