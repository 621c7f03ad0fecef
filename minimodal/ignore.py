"""Which local files stay behind: `.dockerignore` patterns, in Docker's own semantics.

A pattern is anchored at the root of the directory (`*.txt` means the top level, `**/*.txt` any
level), matches a path or any of its parents, `!` takes a path back, and the last match wins. Pure
but for `FilePatternMatcher.from_file`, which reads its file when it is first asked.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath

from .errors import InvalidError

Ignore = Callable[[Path], bool]  # of a path relative to the directory; True: leave it behind


class FilePatternMatcher:
    """True for paths that the patterns match: `ignore=FilePatternMatcher("**/*.pyc")`.

    `~matcher` matches what `matcher` does not. Paths are relative to the directory being added.
    Raises InvalidError.
    """

    def __init__(self, *patterns: str) -> None:
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise InvalidError(f"an ignore pattern is a string, not {pattern!r}")
        self._patterns: list[_Pattern] | None = _compile(patterns)
        self._file: Path | None = None

    @classmethod
    def from_file(cls, file_path: str | os.PathLike[str]) -> FilePatternMatcher:
        """The patterns in `file_path`, such as a `.dockerignore`, read when the image is built."""
        matcher = cls()
        matcher._patterns, matcher._file = None, Path(file_path)
        return matcher

    def __call__(self, path: str | os.PathLike[str]) -> bool:
        return _matches(self._loaded(), PurePath(path).as_posix())

    def __invert__(self) -> Ignore:
        return _Inverted(self)

    def __repr__(self) -> str:
        if self._patterns is None:
            return f"FilePatternMatcher.from_file({str(self._file)!r})"
        return f"FilePatternMatcher({', '.join(repr(p.text) for p in self._patterns)})"

    def can_prune_directories(self) -> bool:
        """Whether a matched directory needs no look inside: no pattern takes a path back."""
        return not any(p.takes_back for p in self._loaded())

    def _loaded(self) -> list[_Pattern]:
        if self._patterns is None:
            if self._file is None or not self._file.is_file():
                raise InvalidError(f"the ignore file {self._file} does not exist")
            self._patterns = _compile(parse(self._file.read_text(encoding="utf-8-sig")))
        return self._patterns


class _Inverted:
    def __init__(self, matcher: FilePatternMatcher) -> None:
        self._matcher = matcher

    def __call__(self, path: Path) -> bool:
        return not self._matcher(path)

    def __invert__(self) -> FilePatternMatcher:
        return self._matcher

    def __repr__(self) -> str:
        return f"~{self._matcher!r}"


def ignore_from(ignore: Iterable[str] | Ignore) -> Ignore:
    """What users pass as `ignore=`: a list of patterns, or a function of the relative path."""
    if callable(ignore):
        return ignore
    if isinstance(ignore, str):
        raise InvalidError(f"ignore is a list of patterns or a function: write ignore=[{ignore!r}]")
    return FilePatternMatcher(*ignore)


def can_prune(ignore: Ignore) -> bool:
    """Whether a directory for which `ignore` is true need not be walked."""
    return isinstance(ignore, FilePatternMatcher) and ignore.can_prune_directories()


def parse(text: str) -> list[str]:
    """The patterns of an ignore file: lines without comments and blanks."""
    lines = (line.strip() for line in text.splitlines() if not line.startswith("#"))
    return [line for line in lines if line]


class _Pattern:
    __slots__ = ("regex", "takes_back", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.takes_back = text.startswith("!")
        body = text[1:].strip() if self.takes_back else text
        if not body:
            raise InvalidError("an ignore pattern is empty behind its '!'")
        body = posixpath.normpath(body).lstrip("/") or "."
        try:
            self.regex = re.compile(_regex(body) + r"\Z", re.DOTALL)
        except re.error as error:
            raise InvalidError(f"the ignore pattern {text!r} is malformed: {error}") from error


def _compile(patterns: Iterable[str]) -> list[_Pattern]:
    return [_Pattern(p.strip()) for p in patterns if p.strip()]


def _regex(pattern: str) -> str:
    out, i, n = [], 0, len(pattern)
    while i < n:
        char = pattern[i]
        i += 1
        if char == "*" and pattern[i : i + 1] == "*":
            i += 1
            if pattern[i : i + 1] == "/":
                i += 1
            out.append(".*" if i == n else "(?:.*/)?")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = pattern.find("]", i + 1)
            if end < 0:
                raise re.error("a '[' without its ']'")
            out.append(f"[{pattern[i:end].replace('[', chr(92) + '[')}]")
            i = end + 1
        elif char == "\\" and i < n:
            out.append(re.escape(pattern[i]))
            i += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def _matches(patterns: list[_Pattern], path: str) -> bool:
    parts = posixpath.normpath(path).split("/")
    paths = ["/".join(parts[: n + 1]) for n in range(len(parts))]  # its parents and itself
    matched = False
    for pattern in patterns:
        if pattern.takes_back == matched and any(pattern.regex.match(p) for p in paths):
            matched = not pattern.takes_back
    return matched


NON_PYTHON_FILES: Ignore = ~FilePatternMatcher("**/*.py")
