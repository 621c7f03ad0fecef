"""`minimodal doctor`: what works here, what does not, and why.

Each backend is really opened, as a run would, within a time limit. The exit code is 1 where nothing
can run, or where the backend that the settings ask for cannot.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from minimodal import __version__
from minimodal.backends.choose import ORDER
from minimodal.errors import Error, RuntimeUnavailable
from minimodal.home import Home, locate_home, open_home

from .listing import print_json
from .parser import Parser, add_backend, add_json, load_settings
from .terminal import paint

PROBE_SECONDS = 20.0
PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `ok` None: for information only."""

    name: str
    ok: bool | None
    text: str
    details: dict[str, Any] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal doctor",
        "Say which backends work here, and why the others do not; and what else a run depends on.",
        "minimodal doctor --json",
    )
    add_backend(parser)
    add_json(parser)
    options = parser.parse(arguments)
    config = load_settings(backend=options.backend)
    facts = [_package(), _python(), _system(), _uv(), _bwrap(), _docker_host(config)]
    home = _home(config)
    record = _record(config) if home.ok else None
    backends = _backends(config) if home.ok else []
    chosen = _chosen(config.backend, backends)
    needed = [home, record] if record else [home]
    ok = chosen.ok is True and all(check.ok is not False for check in [facts[0], *needed])
    if options.json:
        report = {
            "ok": ok,
            "checks": [asdict(check) for check in [*facts, *needed, chosen]],
            "backends": [asdict(check) for check in backends],
        }
        print_json("doctor", report)
    else:
        _print([*facts, *needed, chosen], backends)
    return 0 if ok else 1


def _print(checks: list[Check], backends: list[Check]) -> None:
    for check in checks:
        print(f"{_sign(check)} {check.name:<12} {check.text}")
    for check in backends:
        print(f"    {_sign(check)} {check.name:<10} {check.text}")
        for name, text in check.details.items():
            shown = "; ".join(text) if isinstance(text, tuple | list) else text
            if shown and name != "name":
                print(f"        {name + ':':<11} {shown}")


def _sign(check: Check) -> str:
    if check.ok is None:
        return paint("·", "dim", sys.stdout)
    return paint("✓", "green", sys.stdout) if check.ok else paint("✗", "red", sys.stdout)


def _package() -> Check:
    """Whether scripts started here import this package, not another one of its name."""
    found = importlib.machinery.PathFinder.find_spec("minimodal", [os.getcwd(), *sys.path])
    origin = Path(found.origin).resolve().parent if found and found.origin else None
    if origin in (PACKAGE, None):
        return Check("minimodal", True, f"{__version__} in {PACKAGE}")
    text = (
        f"{origin} hides this package ({PACKAGE}) from scripts that start in {os.getcwd()}: "
        "rename or uninstall it"
    )
    return Check("minimodal", False, text)


def _python() -> Check:
    return Check("Python", None, f"{platform.python_version()} at {sys.executable}")


def _system() -> Check:
    cores = os.cpu_count() or 1
    return Check("system", None, f"{platform.system()} {platform.release()}, {cores} cores")


def _uv() -> Check:
    from minimodal.images.uv import find_uv

    try:
        path = find_uv()
    except RuntimeUnavailable as error:
        return Check("uv", False, str(error))
    return Check("uv", True, f"{_output_of([path, '--version'])} at {path}")


def _bwrap() -> Check:
    from minimodal.backends.bwrap_probe import find_bwrap

    try:
        bwrap = find_bwrap()
    except RuntimeUnavailable as error:
        return Check("bwrap", None, str(error))
    return Check("bwrap", None, f"{bwrap.version} at {bwrap.path}")


def _docker_host(config: Any) -> Check:
    """Which Docker engine the docker command line would use, and who named it."""
    try:
        from minimodal.backends.docker_host import find_docker_hosts

        hosts = find_docker_hosts(config.docker_host, os.environ)
    except (ImportError, RuntimeUnavailable) as error:
        return Check("Docker at", None, str(error))
    if not hosts:
        return Check("Docker at", None, "no DOCKER_HOST, no context, no socket at a known place")
    return Check("Docker at", None, ", ".join(str(host) for host in hosts))


def _home(config: Any) -> Check:
    origin = config.origin("home")
    try:
        home = open_home(config.home)
    except Error as error:
        return Check("home", False, str(error))
    free = shutil.disk_usage(home.state).free >> 30
    return Check("home", True, f"{_shown_home(home)} ({origin}), {free} GiB free", _paths(home))


def _record(config: Any) -> Check:
    """Whether the database of calls can be read, all of it."""
    from minimodal.engine.schema import check_file

    path = locate_home(config.home).database
    found = check_file(path)
    if found:
        return Check("record", False, f"{path} is damaged: {found[0]}", {"damage": found})
    return Check("record", True, str(path) if path.exists() else "no call is on record yet")


def _shown_home(home: Home) -> str:
    return str(home.state.parent if home.state.parent == home.data.parent else home.state)


def _paths(home: Home) -> dict[str, Any]:
    return {
        name: str(getattr(home, name)) for name in ("config", "data", "cache", "state", "runtime")
    }


def _backends(config: Any) -> list[Check]:
    import anyio

    async def all_of_them() -> list[Check]:
        return [await _open_backend(name, config) for name in ORDER]

    return anyio.run(all_of_them)


async def _open_backend(name: str, config: Any) -> Check:
    """Open one backend and close it again. Whatever it raises is the answer."""
    import anyio

    try:
        module = importlib.import_module(f"minimodal.backends.{name}")
        with anyio.fail_after(PROBE_SECONDS):
            async with module.open_backend(locate_home(config.home), config) as backend:
                described = backend.describe()._asdict()
        return Check(name, True, "works", described)
    except TimeoutError:
        return Check(name, False, f"it did not answer within {PROBE_SECONDS:.0f} s")
    except Exception as error:
        known = isinstance(error, Error)
        return Check(name, False, str(error) if known else f"{type(error).__name__}: {error}")


def _chosen(wanted: str, backends: list[Check]) -> Check:
    working = [check.name for check in backends if check.ok]
    if wanted == "embedded":
        working = [name for name in working if name != "docker"]
    elif wanted != "auto":
        works = wanted in working
        return Check("backend", works, wanted if works else f"{wanted}, which does not work here")
    if working:
        return Check("backend", True, f"{working[0]}, the first that works")
    return Check("backend", False, "none works here")


def _output_of(command: list[str]) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not run ({error})"
    return result.stdout.strip() or f"says nothing (exit code {result.returncode})"
