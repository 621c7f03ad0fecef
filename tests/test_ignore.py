"""Docker's ignore semantics: anchoring, `**`, negation, order, parents."""

from __future__ import annotations

from pathlib import Path

import pytest

from minimodal.errors import InvalidError
from minimodal.ignore import NON_PYTHON_FILES, FilePatternMatcher, ignore_from, parse

CASES = [
    # patterns, ignored, kept
    (["*.txt"], ["a.txt"], ["d/a.txt", "a.md"]),
    (["**/*.txt"], ["a.txt", "d/a.txt", "d/e/a.txt"], ["a.txt.md"]),
    (["build"], ["build", "build/x/y.o"], ["src/build", "builder"]),
    (["build/"], ["build/x"], ["builds"]),
    (["/build"], ["build/x"], ["src/build"]),
    (["**/node_modules"], ["node_modules/x.js", "a/b/node_modules/x.js"], ["node_modules2"]),
    (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z", "a/b/z/file"], ["a/zz", "z"]),
    (["docs/**"], ["docs/a", "docs/a/b"], ["docsx"]),
    (["**"], ["a", "a/b"], []),
    (["*"], ["a", "a/b"], []),
    (["?.py"], ["a.py"], ["ab.py", "d/a.py"]),
    (["[a-c].py"], ["a.py", "c.py"], ["d.py"]),
    (["[^a].py"], ["b.py"], ["a.py"]),
    ([r"\*.py"], ["*.py"], ["a.py"]),
    (["a.b"], ["a.b"], ["axb"]),
    (["*.md", "!README.md"], ["a.md"], ["README.md"]),
    (["!README.md", "*.md"], ["README.md"], []),
    (["*.md", "!README*.md", "README-secret.md"], ["README-secret.md", "x.md"], ["README.md"]),
    (["data", "!data/keep"], ["data/x", "data/a/keep"], ["data/keep", "data/keep/x"]),
    (["./a/../b"], ["b"], ["a"]),
    ([" spaced "], ["spaced"], []),
    (["na\nme"], ["na\nme"], ["na"]),
]


@pytest.mark.parametrize(("patterns", "ignored", "kept"), CASES)
def test_semantics(patterns: list[str], ignored: list[str], kept: list[str]) -> None:
    matcher = FilePatternMatcher(*patterns)
    assert [p for p in ignored if not matcher(Path(p))] == []
    assert [p for p in kept if matcher(Path(p))] == []


def test_inverted_matches_the_rest_and_twice_inverted_is_the_same() -> None:
    matcher = FilePatternMatcher("*.py")
    assert (~matcher)(Path("a.txt"))
    assert not (~matcher)(Path("a.py"))
    assert ~(~matcher) is matcher
    assert NON_PYTHON_FILES(Path("d/a.txt"))
    assert not NON_PYTHON_FILES(Path("d/a.py"))


def test_a_file_is_read_late_and_without_comments(tmp_path: Path) -> None:
    file = tmp_path / ".dockerignore"
    matcher = FilePatternMatcher.from_file(file)
    file.write_text("# comment\n\n  *.log  \n!keep.log\n")
    assert matcher(Path("a.log"))
    assert not matcher(Path("keep.log"))
    assert not matcher.can_prune_directories()


def test_missing_file_and_bad_patterns_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="nowhere"):
        FilePatternMatcher.from_file(tmp_path / "nowhere")(Path("a"))
    for bad in ("[a", "!", "[z-a]"):
        with pytest.raises(InvalidError):
            FilePatternMatcher(bad)
    with pytest.raises(InvalidError, match="ignore="):
        ignore_from("*.py")


def test_parse_keeps_order() -> None:
    assert parse("a\n#x\n!b\n") == ["a", "!b"]
