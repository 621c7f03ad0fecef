"""What `Image` methods accept, checked where the user wrote it, with errors that say what to write."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import InvalidError
from .layers import PipInstall

OLDEST_PYTHON = (3, 10)


def strings(method: str, argument: str, values: Iterable[Any]) -> tuple[str, ...]:
    """Strings and lists of strings, flattened: `f("a", ["b", "c"])` is `f("a", "b", "c")`."""
    if isinstance(values, str):
        values = [values]
    found: list[str] = []
    for value in values:
        if isinstance(value, str):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += strings(method, argument, value)
        else:
            raise InvalidError(
                f"{method}: {argument} must be strings or lists of strings, not {value!r}"
            )
    return tuple(found)


def packages_of(method: str, argument: str, values: Iterable[Any]) -> tuple[str, ...]:
    """Package names; an option among them would change the meaning of the others, so it is refused."""
    names = tuple(name.strip() for name in strings(method, argument, values))
    for name in names:
        if name.startswith("-"):
            way = "use extra_options=" if "pip" in method else "use run_commands for that"
            raise InvalidError(f"{method}: the option {name!r} is not a package; {way}")
        if not name:
            raise InvalidError(f"{method}: a package name is empty")
    return names


def module_names(values: Iterable[Any]) -> tuple[str, ...]:
    """Names as `import` has them."""
    names = strings("add_local_python_source", "modules", values)
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise InvalidError(f"add_local_python_source takes module names, not {name!r}")
    return names


def command(method: str, value: Any) -> tuple[str, ...]:
    """The exec form: a list of strings, never one string to be split."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
        raise InvalidError(
            f'{method} takes a list of strings such as ["python", "-m", "app"], not {value!r}'
        )
    return tuple(value)


def env_items(method: str, value: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """Environment variables, sorted. None means: not set here (Modal's way to write a condition)."""
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise InvalidError(f"{method}: environment variables are a dict, not {value!r}")
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise InvalidError(f"{method}: {name!r} is no name of an environment variable")
        if text is not None and not isinstance(text, str):
            raise InvalidError(
                f"{method}: the value of {name} must be a string, not {text!r}; write {str(text)!r}"
            )
    return tuple(sorted((name, text) for name, text in value.items() if text is not None))


def secrets_of(secrets: Iterable[Any] | None) -> tuple[Any, ...]:
    """Anything that is a Secret to us: it has `_secret_id()`."""
    found = tuple(secret for secret in secrets or () if secret is not None)
    for secret in found:
        if not hasattr(secret, "_secret_id"):
            raise InvalidError(
                f"secrets= takes Secret objects, not {type(secret).__name__}; write "
                "Secret.from_dict({...}) or Secret.from_name('...')"
            )
    return found


def check_remote_path(method: str, path: str) -> str:
    """An absolute path in the container, normalised."""
    if not path.startswith("/"):
        raise InvalidError(f"{method}: the remote path must be absolute, not {path!r}")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in path:
        raise InvalidError(f"{method}: the remote path {path!r} must not hold '..'")
    return "/" + "/".join(parts)


def check_version(argument: str, version: Any) -> str:
    """A Python minor version such as "3.11"; None is the one that runs here."""
    if version is None:
        return f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not isinstance(version, str):
        raise InvalidError(f'{argument} must be a string such as "3.11", not {version!r}')
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.\d+)?", version)
    if not match:
        raise InvalidError(f'{argument} must look like "3.11", not {version!r}')
    if (int(match[1]), int(match[2])) < OLDEST_PYTHON or match[1] != "3":
        raise InvalidError(f"{argument}: Python {version} is not supported; 3.10 is the oldest")
    return f"{match[1]}.{match[2]}"


def added_python(version: Any) -> str | None:
    """The minor version to add to an image; None is none."""
    return None if version is None else check_version("add_python", version)


def python_of_tag(tag: str) -> str | None:
    """The minor version that a tag of Docker's official Python image names."""
    match = re.fullmatch(r"(?:docker\.io/)?(?:library/)?python:(3\.\d+)(?:[.\-].*)?", tag.strip())
    return match[1] if match else None


def check_uv_version(version: str | None) -> None:
    if version is not None:
        raise InvalidError(
            f"uv_version={version!r}: builds use the uv that is installed beside minimodal; leave it "
            "out, and install the uv you want on the host"
        )


def pip_layer(
    names: tuple[str, ...],
    index_url: str | None,
    extra_index_url: str | None,
    find_links: str | None,
    pre: bool,
    extra_options: str,
    env: Mapping[str, str | None] | None,
) -> PipInstall:
    """What all ways to install packages make of their options."""
    items = env_items("env", env)
    return PipInstall(
        names, (), index_url, extra_index_url, find_links, pre, extra_options, env=items
    )


def forced() -> bool:
    """Whether the environment asks to ignore what is built already."""
    names = ("FORCE_BUILD", "IGNORE_CACHE")
    values = [
        os.environ.get(f"{prefix}_{name}") for prefix in ("MINIMODAL", "MODAL") for name in names
    ]
    return any(value not in (None, "", "0", "false") for value in values)
