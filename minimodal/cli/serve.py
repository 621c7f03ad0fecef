"""`minimodal serve`: run a script's apps and replace them whenever a file of theirs changes."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .engines import ask
from .parser import Parser, add_backend, add_env, add_script, load_settings
from .reference import Reference, find, parse
from .screen import Screen
from .watching import Watched, Watcher

if TYPE_CHECKING:
    from minimodal.host import Host


def main(arguments: list[str]) -> int:
    parser = Parser(
        "minimodal serve",
        "Run a script's apps until stopped: their schedules, endpoints, and calls by name from other\n"
        "programs. When a file that the script imports changes, the new code takes over as soon as\n"
        "it is ready; running calls finish on the old. An edit that doesn't load changes nothing.",
        "minimodal serve api.py",
    )
    add_script(parser)
    parser.add_argument("--no-reload", action="store_true", help="leave it as it is now")
    parser.add_argument("-q", "--quiet", action="store_true", help="only what your code prints")
    add_env(parser)
    add_backend(parser)
    options = parser.parse(arguments)
    config = load_settings(backend=options.backend)
    reference = parse(options.reference, is_module=options.module)
    if not options.module and not Path(reference.source).is_file():
        find(reference)  # says what is there instead
    from minimodal.host import Host

    host = Host(config, role="serve")
    with Screen(quiet=options.quiet).of(host) as screen:
        server = Server(host, screen, reference, reload=not options.no_reload)
        try:
            server.run()
        finally:
            server.close()
    return 0


class Loaded(NamedTuple):
    """A loader has ended. `reports`: what it said before."""

    process: subprocess.Popen[bytes]
    reports: list[dict[str, Any]]


class Server:
    """Loads, watches and loads again; everything that happens comes through one queue."""

    def __init__(self, host: Host, screen: Screen, reference: Reference, *, reload: bool) -> None:
        self._host = host
        self._screen = screen
        self._reference = reference
        self._reload = reload
        self._app_id = f"ap-serve-{host.engine.id.removeprefix('en-')}"
        self._happened: queue.SimpleQueue[Loaded | list[str]] = queue.SimpleQueue()
        self._watched = Watched(0.0)
        self._watcher: Watcher | None = None
        self._loader: subprocess.Popen[bytes] | None = None
        self._began = self._began_at = 0.0  # the load that was begun last
        self._changed: list[str] = []
        self._apps: set[str] = set()

    def run(self) -> None:
        self._load([])
        while self._host.is_running():
            try:
                happened = self._happened.get(timeout=1.0)
            except queue.Empty:
                continue  # whether the engine still runs
            if isinstance(happened, Loaded):
                if happened.process is self._loader:
                    self._loader = None
                    self._loaded(happened)
            else:
                self._load(happened)
        self._host.wait()

    def close(self) -> None:
        self._end_loader()
        if self._watcher is not None:
            self._watcher.stop()

    # --- loading -------------------------------------------------------------------------------------

    def _load(self, changed: list[str]) -> None:
        self._end_loader()
        self._began, self._began_at, self._changed = time.monotonic(), time.time(), changed
        reading, writing = os.pipe()
        is_module = "1" if self._reference.is_module else "0"
        target = f"::{self._reference.target}" if self._reference.target else ""
        arguments = [str(writing), self._socket(), self._app_id, is_module]
        command = [sys.executable, "-m", "minimodal.cli.loading", *arguments]
        self._loader = subprocess.Popen(
            [*command, self._reference.source + target], pass_fds=[writing]
        )
        os.close(writing)
        threading.Thread(
            target=self._listen, args=(self._loader, reading), name="minimodal-loader", daemon=True
        ).start()

    def _listen(self, process: subprocess.Popen[bytes], reading: int) -> None:
        with os.fdopen(reading) as reports:
            said = [json.loads(line) for line in reports if line.endswith("\n")]
        process.wait()
        self._happened.put(Loaded(process, said))

    def _end_loader(self) -> None:
        """A newer change is there, or the end: what is being loaded is of no interest."""
        loader, self._loader = self._loader, None
        if loader is not None:
            loader.kill()
            loader.wait()

    def _socket(self) -> str:
        from minimodal.home import locate_home

        return str(locate_home().engines / f"{self._host.engine.id}.sock")

    # --- loaded --------------------------------------------------------------------------------------

    def _loaded(self, loaded: Loaded) -> None:
        well = loaded.process.returncode == 0
        if well:
            self._watched = Watched(self._began_at)  # else what was watched before still counts
        self._watched.since = self._began_at
        self._watched.also_new = not well
        for report in loaded.reports:
            self._watched.add(report.get("files", []))
        apps = {report["id"]: report for report in loaded.reports if "app" in report}
        seconds = time.monotonic() - self._began
        changed = ", ".join(os.path.relpath(path) for path in self._changed[:3])
        if well:
            for app_id in self._apps - apps.keys():
                ask(self._host.client, "app.close", id=app_id)
            self._apps = set(apps)
            for report in apps.values():
                functions = ", ".join(report["functions"])
                self._screen.say(f"Serving {report['app']}: {functions}", "done")
            why = f"; changed: {changed}" if changed else f" (pid {os.getpid()})"
            self._screen.say(f"Ready in {seconds * 1e3:.0f} ms{why}", "done")
        else:
            goes_on = "; the code before goes on" if self._apps else ""
            self._screen.say(f"{changed or self._reference} does not load{goes_on}", "failed")
        if self._reload:
            self._watch()

    def _watch(self) -> None:
        old = self._watcher
        if old is not None and old.places == self._watched.places():
            old.watch(self._watched)
            return
        self._watcher = Watcher(self._watched, self._happened.put)
        if old is not None:
            old.stop()
