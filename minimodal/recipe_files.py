"""Steps of an image that read a file of the user's: requirements, projects, Dockerfiles, functions.

Each reads when it is resolved, never when the image is written down. The rules of the formats are
here; `image.py` only passes what the user gave.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import InvalidError
from .ignore import FilePatternMatcher, Ignore, ignore_from
from .image_arguments import added_python, env_items, secrets_of
from .layers import Dockerfile, Layer, LocalFile, PipInstall, UvSync
from .localfiles import local_file, tree
from .recipe import HasSecretId, with_secrets

if TYPE_CHECKING:
    from .home import Home


class Requirements(NamedTuple):
    """Requirement files, with the files that they name by `-r` and `-c`."""

    files: tuple[Path, ...]
    install: PipInstall  # the rest of the layer
    secrets: tuple[HasSecretId, ...] = ()

    def layer(self, home: Home | None) -> Layer:
        roots = [_existing(path) for path in self.files]
        beside: list[Path] = []
        for path in roots:
            _follow(path, beside)
        beside = [path for path in beside if path not in roots]
        common = Path(os.path.commonpath([str(path.parent) for path in roots + beside]))

        def record(path: Path) -> LocalFile:
            return local_file(path, f"/{path.relative_to(common).as_posix()}")

        layer = self.install._replace(
            requirements=tuple(record(path) for path in roots),
            included=tuple(record(path) for path in beside),
        )
        return with_secrets(layer, self.secrets)


class Pyproject(NamedTuple):
    """The dependencies listed in a pyproject.toml."""

    file: Path
    groups: tuple[str, ...]
    install: PipInstall
    secrets: tuple[HasSecretId, ...] = ()

    def layer(self, home: Home | None) -> Layer:
        project = _toml(_existing(self.file)).get("project")
        if not isinstance(project, dict) or "dependencies" not in project:
            raise InvalidError(
                f"{self.file} has no [project] dependencies. pip_install_from_pyproject reads PEP 621 "
                "metadata; a Poetry project needs pip_install_from_requirements."
            )
        packages = list(project["dependencies"])
        optional = project.get("optional-dependencies", {})
        for group in self.groups:
            if group not in optional:
                known = ", ".join(sorted(optional)) or "none"
                raise InvalidError(
                    f"{self.file} has no optional dependencies named {group!r} (it has: {known})"
                )
            packages += optional[group]
        return with_secrets(self.install._replace(packages=tuple(packages)), self.secrets)


class Project(NamedTuple):
    """A uv project: its locked dependencies, not the project itself."""

    directory: Path
    sync: UvSync
    secrets: tuple[HasSecretId, ...] = ()

    def layer(self, home: Home | None) -> Layer:
        pyproject, lock = self.directory / "pyproject.toml", self.directory / "uv.lock"
        if not pyproject.is_file():
            raise InvalidError(f"uv_sync: {pyproject} does not exist; give the project's directory")
        if "workspace" in _toml(pyproject).get("tool", {}).get("uv", {}):
            raise InvalidError(
                f"uv_sync: {pyproject} is a uv workspace, which is not supported. Export it with "
                "`uv export --no-emit-workspace` and use pip_install_from_requirements."
            )
        files = [local_file(_existing(pyproject), "/pyproject.toml")]
        if lock.is_file():
            files.append(local_file(_existing(lock), "/uv.lock"))
        frozen = self.sync.frozen and lock.is_file()
        return with_secrets(self.sync._replace(project=tuple(files), frozen=frozen), self.secrets)


class DockerStep(NamedTuple):
    """Dockerfile text, or a Dockerfile's path, with the files of its context that it copies."""

    text: str | Path
    context: Path
    ignore: Ignore | None  # None: .dockerignore
    rest: Dockerfile
    secrets: tuple[HasSecretId, ...] = ()

    def layer(self, home: Home | None) -> Layer:
        text = self.text if isinstance(self.text, str) else _existing(self.text).read_text("utf-8")
        if not text.strip():
            raise InvalidError(f"the Dockerfile {self.text} is empty")
        layer = self.rest._replace(text=text, context=self._files(text))
        return with_secrets(layer, self.secrets)

    def _files(self, text: str) -> tuple[LocalFile, ...]:
        wanted = copied_paths(text)
        if not wanted:
            return ()
        ignore = self.ignore or self._dockerignore()
        if "." in wanted:
            return tree(self.context, "/", ignore)
        needed = FilePatternMatcher(*wanted)
        return tree(self.context, "/", lambda path: not needed(path) or ignore(path))

    def _dockerignore(self) -> Ignore:
        candidates = [self.context / ".dockerignore"]
        if isinstance(self.text, Path):
            candidates.insert(0, self.text.with_name(self.text.name + ".dockerignore"))
        for candidate in candidates:
            if candidate.is_file():
                return FilePatternMatcher.from_file(candidate)
        return FilePatternMatcher()


def docker_step(
    text: str | Path,
    context: str | os.PathLike[str] | None,
    env: Mapping[str, str | None] | None,
    secrets: Iterable[Any] | None,
    build_args: Mapping[str, str] | None,
    ignore: Sequence[str] | Ignore | None,
    add_python: str | None = None,
) -> DockerStep:
    """What `from_dockerfile` and `dockerfile_commands` were given, checked."""
    rest = Dockerfile(
        "",
        build_args=env_items("build_args", build_args),
        add_python=added_python(add_python),
        env=env_items("env", env),
    )
    ignored = None if ignore is None else ignore_from(ignore)
    return DockerStep(text, Path(context or "."), ignored, rest, secrets_of(secrets))


def copied_paths(text: str) -> tuple[str, ...]:
    """Patterns of the context that COPY and ADD name; "." where the whole context is needed."""
    found: list[str] = []
    for line in re.sub(r"\\[ \t]*\n", " ", text).splitlines():
        match = re.match(r"\s*(?:ONBUILD\s+)?(COPY|ADD)\s+(.*)", line, re.IGNORECASE)
        if not match:
            continue
        words = match[2].split()
        if any(word.startswith("--from") for word in words):
            continue
        while words and words[0].startswith("--"):
            words.pop(0)
        rest = " ".join(words)
        try:
            words = (
                re.findall(r'"((?:[^"\\]|\\.)*)"', rest) if rest[:1] == "[" else shlex.split(rest)
            )
        except ValueError:
            return (".",)
        for word in words[:-1]:
            clean = os.path.normpath(word.lstrip("/") or ".")
            if "$" in word or word.startswith("<<") or clean == "." or clean.startswith(".."):
                return (".",)
            if not re.match(r"[a-z]+://", word):
                found.append(clean)
    return tuple(dict.fromkeys(found))


def _follow(path: Path, found: list[Path]) -> None:
    for line in path.read_text("utf-8-sig").splitlines():
        match = re.match(r"\s*(?:-r|--requirement|-c|--constraint)[\s=]+(\S+)", line)
        if match and "://" not in match[1]:
            nested = _existing(path.parent / match[1], f", which {path} names")
            if nested not in found:
                found.append(nested)
                _follow(nested, found)


def _existing(path: Path, why: str = "") -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"the local file {path}{why} does not exist")
    return path.resolve()


def _toml(path: Path) -> dict[str, Any]:
    # tomli: the same module for Python 3.10, a dependency of the host's installation only.
    toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        return dict(toml.loads(path.read_text("utf-8")))
    except toml.TOMLDecodeError as error:
        raise InvalidError(f"{path} is not valid TOML: {error}") from error
