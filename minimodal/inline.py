"""Inline script metadata (PEP 723): what a script's `# /// script` block says that it needs."""

from __future__ import annotations

import ast
import re

from .errors import InvalidError

BLOCK = re.compile(r"^# /// script\s*$(?P<content>(?:\n#(?: .*)?$)*?)\n# ///\s*$", re.M)
DEPENDENCIES = re.compile(r"^dependencies\s*=\s*\[", re.M)
# In containers already; the index has another of the name.
OURSELVES = re.compile(r"(?i)mini[-_]?modal(?![\w.-])")


def inline_dependencies(path: str | None) -> list[str]:
    """The packages that the script at `path` declares, without minimodal itself.

    None of them where it has no such block. Raises InvalidError where the list cannot be read.
    """
    try:
        with open(path or "", encoding="utf-8") as file:
            found = BLOCK.search(file.read())
    except (OSError, UnicodeDecodeError):
        return []
    if found is None:
        return []
    content = "\n".join(line[2:] for line in found["content"].split("\n"))
    start = DEPENDENCIES.search(content)
    packages = _array(content[start.end() - 1 :], path) if start else []
    return [each for each in packages if not OURSELVES.match(each)]


def _array(text: str, path: str | None) -> list[str]:
    """The array of strings that `text` begins with. TOML writes it as Python does, with comments."""
    for end in (match.end() for match in re.finditer(r"\]", text)):
        try:
            value = ast.literal_eval(text[:end])
        except (SyntaxError, ValueError):
            continue  # a bracket inside a string: "package[extra]"
        if all(isinstance(each, str) for each in value):
            return list(value)
    raise InvalidError(f"{path}: `dependencies` of its # /// script block is no list of strings")
