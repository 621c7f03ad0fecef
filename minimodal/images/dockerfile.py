"""Dockerfile instructions as layers of ours, for backends that have no Docker to give them to.

RUN, COPY, ADD of local files, ENV, ARG, WORKDIR, CMD, ENTRYPOINT, SHELL and one FROM of an official
Python image are understood; LABEL, EXPOSE, STOPSIGNAL and MAINTAINER change nothing here. The rest
(several stages, USER, VOLUME, ONBUILD, HEALTHCHECK, heredocs) is refused by name.
"""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping

from minimodal.errors import BuildError
from minimodal.ignore import FilePatternMatcher
from minimodal.image_arguments import python_of_tag
from minimodal.layers import (
    Base,
    Cmd,
    CopyFiles,
    Dockerfile,
    Entrypoint,
    ImageSpec,
    Layer,
    LocalFile,
    RunCommands,
    SetEnv,
    Shell,
    Workdir,
)

from .settings import settings_of

_NOTHING = ("LABEL", "EXPOSE", "STOPSIGNAL", "MAINTAINER")


def translate(spec: ImageSpec) -> ImageSpec:
    """The spec with every Dockerfile layer replaced. Raises BuildError for what cannot be."""
    if not any(isinstance(layer, Dockerfile) for layer in spec.layers):
        return spec
    layers: list[Layer] = []
    force = spec.force_from
    for index, layer in enumerate(spec.layers):
        if index == spec.force_from:
            force = len(layers)
        if isinstance(layer, Dockerfile):
            layers += _layers(layer, tuple(layers))
        else:
            layers.append(layer)
    return spec._replace(layers=tuple(layers), force_from=force)


def _layers(dockerfile: Dockerfile, below: tuple[Layer, ...]) -> list[Layer]:
    state = _State(dockerfile, below)
    made: list[Layer] = []
    for number, name, rest in instructions(dockerfile.text):
        try:
            made += state.layers(name, rest)
        except ValueError as error:
            raise BuildError(
                f"line {number} of the Dockerfile: {name} {error}. Use --backend docker for it."
            ) from None
    return made


class _State:
    """What earlier instructions say about later ones. Its methods raise ValueError to refuse."""

    def __init__(self, dockerfile: Dockerfile, below: tuple[Layer, ...]) -> None:
        settings = settings_of(below)
        self._dockerfile = dockerfile
        self._args = dict(dockerfile.build_args)
        self._env = dict(settings.env)
        self._shell = settings.shell
        self._workdir = settings.workdir
        self._started = bool(below)

    def layers(self, name: str, rest: str) -> Iterable[Layer]:
        if name == "FROM":
            return [self._from(self._expand(rest).split()[0])]
        if name == "ARG":
            key, _, default = rest.partition("=")
            self._args.setdefault(key.strip(), self._expand(default.strip().strip("\"'")))
            return []
        if not self._started:
            raise ValueError("comes before FROM")
        match name:
            case "RUN":
                return [self._run(rest)]
            case "ENV":
                pairs = _pairs(rest, self._known())
                self._env.update(pairs)
                return [SetEnv(tuple(sorted(pairs.items())))]
            case "COPY" | "ADD":
                context = self._dockerfile.context
                return [CopyFiles(tuple(_copied(self._expand(rest), context, self._workdir)))]
            case "WORKDIR":
                self._workdir = posixpath.join(self._workdir or "/", self._expand(rest))
                return [Workdir(self._workdir)]
            case "SHELL":
                self._shell = _json(rest) or self._shell
                return [Shell(self._shell)]
            case "CMD":
                return [Cmd(_json(rest) or (*self._shell, rest))]
            case "ENTRYPOINT":
                return [Entrypoint(_json(rest) or (*self._shell, rest))]
            case _ if name in _NOTHING:
                return []
        raise ValueError("is not supported by this backend")

    def _from(self, tag: str) -> Layer:
        if self._started:
            raise ValueError("a second time: several stages are not supported by this backend")
        python, added = python_of_tag(tag), self._dockerfile.add_python
        if python is None and added is None:
            raise ValueError(f"{tag}: only python:X.Y images can be had without Docker")
        self._started = True
        return Base(tag, python, added)

    def _run(self, rest: str) -> Layer:
        if rest.startswith(("--", "<<")):
            raise ValueError("with options or a heredoc is not supported by this backend")
        command = _json(rest)
        line = shlex.join(command) if command else rest
        step = {k: v for k, v in self._args.items() if k not in self._env}
        step |= dict(self._dockerfile.env)
        return RunCommands((line,), tuple(sorted(step.items())), self._dockerfile.secrets)

    def _known(self) -> dict[str, str]:
        return {
            **self._args,
            **self._env,
            "PATH": "$PATH",
        }  # the base's is seen later: settings.over

    def _expand(self, text: str) -> str:
        return expand(text, self._known())


def instructions(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, name in capitals, the rest) of each instruction, its lines joined."""
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (joined and not line.strip()):
            continue
        first = first if joined else number
        if line.rstrip().endswith("\\"):
            joined += line.rstrip()[:-1] + " "
            continue
        whole, joined = (joined + line).strip(), ""
        if whole:
            name, _, rest = whole.partition(" ")
            yield first, name.upper(), rest.strip()
    if joined.strip():
        name, _, rest = joined.strip().partition(" ")
        yield first, name.upper(), rest.strip()


def expand(text: str, known: Mapping[str, str]) -> str:
    """$NAME, ${NAME}, ${NAME:-default} and ${NAME:+other}."""

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        found = known.get(name, "")
        if match["sign"] == "-":
            return found or match["other"]
        if match["sign"] == "+":
            return match["other"] if found else ""
        return found

    pattern = r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?::(?P<sign>[-+])(?P<other>[^}]*))?\})"
    return re.sub(pattern, value, text)


def _json(text: str) -> tuple[str, ...]:
    try:
        value = json.loads(text)
    except ValueError:
        return ()
    return (
        tuple(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else ()
    )


def _pairs(text: str, known: Mapping[str, str]) -> dict[str, str]:
    words = shlex.split(text)
    if words and "=" not in words[0]:  # the old form: ENV NAME the rest of the line
        name, _, value = text.partition(" ")
        return {name: expand(value.strip(), known)}
    return {k: expand(v, known) for k, _, v in (word.partition("=") for word in words)}


def _copied(rest: str, context: tuple[LocalFile, ...], workdir: str | None) -> Iterator[LocalFile]:
    words = list(_json(rest)) or shlex.split(rest)
    while words and words[0].startswith("--"):
        if not words[0].startswith(("--chmod", "--chown", "--link")):
            raise ValueError(f"{words[0]} is not supported by this backend")
        words.pop(0)
    if len(words) < 2:
        raise ValueError("needs a source and a target")
    *sources, last = words
    target = posixpath.join(workdir or "/", last)
    many = len(sources) > 1 or last.endswith(("/", "/.")) or last == "."
    for source in sources:
        if "://" in source:
            raise ValueError("of a URL is not supported by this backend")
        found = list(_from_context(source, context, target, many))
        if not found:
            raise ValueError(f"{source}: no such file in the context (or it is ignored)")
        yield from found


def _from_context(
    source: str, context: tuple[LocalFile, ...], target: str, many: bool
) -> Iterator[LocalFile]:
    """Files of the context at or below `source`, which may hold wildcards."""
    clean = posixpath.normpath(source.lstrip("/") or ".")
    matcher = FilePatternMatcher("**" if clean == "." else clean)
    for file in context:
        path = file.target.lstrip("/")
        if not matcher(path):
            continue
        if clean == ".":
            place = posixpath.join(target, path)
        else:
            depth = len(clean.split("/"))
            parts = path.split("/")
            inside = parts[depth:]  # below a directory that was named: its contents are copied
            if inside:
                place = posixpath.join(target, *inside)
            else:
                place = posixpath.join(target, parts[-1]) if many else target
        yield file._replace(target=posixpath.normpath(place))
