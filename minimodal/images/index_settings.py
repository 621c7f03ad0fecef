"""Where packages come from on this machine: what pip and uv are told here, said in uv's words.

uv does not read pip's configuration, and people behind a mirror have it there. Pure but for reading
those files. What is said to uv itself (UV_*, uv.toml) wins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from minimodal.backends.network_settings import CA_VARIABLES, PROXY_VARIABLES

NETWORK = ("SSL_CERT_DIR", *PROXY_VARIABLES)

# pip's option -> uv's variable. Where uv takes a list, its separator.
_OPTIONS: dict[str, tuple[str, str]] = {
    "index-url": ("UV_DEFAULT_INDEX", ""),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "trusted-host": ("UV_INSECURE_HOST", " "),
    "constraint": ("UV_CONSTRAINT", " "),
    "no-index": ("UV_NO_INDEX", ""),
    "pre": ("UV_PRERELEASE", ""),
    "timeout": ("UV_HTTP_TIMEOUT", ""),
    "cert": ("SSL_CERT_FILE", ""),
    "proxy": ("ALL_PROXY", ""),
}
# About this machine's own directories and habits, not about where packages come from.
_NOT_OURS = {"UV_CACHE_DIR", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_TARGET"}
_NOT_OURS |= {"UV_PYTHON_INSTALL_DIR", "UV_LINK_MODE", "UV_BREAK_SYSTEM_PACKAGES"}
_NOT_OURS |= {"PIP_CONFIG_FILE", "PIP_CACHE_DIR", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"}


def package_environment(
    env: Mapping[str, str], files: tuple[Path, ...] | None = None
) -> dict[str, str]:
    """The variables that a build step needs to reach the package indexes, from an environment.

    Index URLs can hold passwords: for build steps only, never for containers.
    """
    options = _pip_options(env, _config_files(env) if files is None else files)
    found: dict[str, str] = {}
    for name in NETWORK:
        if value := env.get(name) or env.get(name.lower()):
            found[name] = found[name.lower()] = value
    theirs = {k: v for k, v in env.items() if v and k.startswith(("UV_", "PIP_"))}
    found.update({k: v for k, v in theirs.items() if k not in _NOT_OURS})
    for option, (variable, separator) in _OPTIONS.items():
        value = options.get(option, "")
        if not value or found.get(variable) or env.get(variable):
            continue
        if option in ("no-index", "pre"):
            if value.lower() not in ("1", "true", "yes", "on"):
                continue
            value = "allow" if option == "pre" else "1"
        found[variable] = separator.join(value.split()) if separator else value
    if found.get("UV_INDEX") and options.get("extra-index-url") and not env.get("UV_INDEX"):
        # pip takes the best version of all indexes, uv the first index that has the package.
        found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    bundle = next((env[name] for name in CA_VARIABLES if env.get(name)), found.get("SSL_CERT_FILE"))
    if bundle and os.path.isfile(bundle):
        found.update(dict.fromkeys(CA_VARIABLES, bundle))
    return found


def local_paths(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Files and directories of this machine that the settings name: a sandbox has to see them."""
    found: dict[str, None] = {}
    for name, value in environment.items():
        if not name.startswith(("UV_", "PIP_")) and name not in CA_VARIABLES:
            continue
        for word in value.replace(",", " ").split():
            path = word.rpartition("=")[2].removeprefix("file://")
            if os.path.isabs(path) and os.path.exists(path):
                found[os.path.realpath(path)] = found[path] = None
    return tuple(found)


def _pip_options(env: Mapping[str, str], files: tuple[Path, ...]) -> dict[str, str]:
    """What pip would use: later files win, then the environment; [install] over [global]."""
    import configparser  # when packages are installed

    options: dict[str, str] = {}
    for section in ("global", "install"):
        for file in files:
            parser = configparser.RawConfigParser()
            try:
                parser.read(file, encoding="utf-8")
            except (configparser.Error, UnicodeDecodeError, OSError):
                continue  # pip itself will say so where it is used
            if parser.has_section(section):
                options.update({k.replace("_", "-"): v for k, v in parser.items(section) if v})
    for name, value in env.items():
        if name.startswith("PIP_") and value:
            options[name[4:].lower().replace("_", "-")] = value
    return options


def _config_files(env: Mapping[str, str]) -> tuple[Path, ...]:
    """In pip's order: global, user, of this environment, and PIP_CONFIG_FILE."""
    chosen = env.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return ()
    dirs = env.get("XDG_CONFIG_DIRS") or "/etc/xdg"
    home = Path(env.get("HOME") or Path.home())
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    files = [Path(d) / "pip" / "pip.conf" for d in reversed(dirs.split(os.pathsep))]
    files += [Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf"]
    files.append(Path(sys.prefix) / "pip.conf")
    return (*files, Path(chosen)) if chosen else tuple(files)
