"""The sandboxes of one engine, by id and by name, and the operations about them (see ops.py).

They live with this engine and end with it, and with the app that they were made for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio

from minimodal.codec import from_plain
from minimodal.errors import (
    AlreadyExistsError,
    InvalidError,
    NotFoundError,
    ResourceExhaustedError,
)
from minimodal.layers import encode
from minimodal.protocols import Reply
from minimodal.sandbox_spec import MAX_TAGS, ProcessSpec, SandboxSpec
from minimodal.types import Payload

from .ops import Caller, Fields
from .readiness import wait_ready
from .sandbox_run import MAIN, SandboxRun
from .sandbox_streams import SandboxProcess
from .tunnels import LOOPBACK, check_port

if TYPE_CHECKING:
    from .engine import Engine

KEPT = 1000  # sandboxes that have ended and can still be asked how
KEPT_OUTPUT = 16  # of these, whose unread output is kept
MAX_INPUT_BYTES = 1 << 20  # of one write


class Sandboxes:
    """Handlers over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._runs: dict[str, SandboxRun] = {}  # in the order of their start
        self._names: set[tuple[str, str]] = set()  # (app, name) of those that start or run
        for name in (
            "create find named list wait ready terminate tags tunnels snapshot reload exec read write join"
        ).split():
            engine.ops.add(f"sandbox.{name}", getattr(self, name))

    async def close_app(self, app: str | None) -> None:
        """End the sandboxes of an app; None: all of them. Returns when they are gone."""
        mine = [run for run in self._runs.values() if app is None or run.spec.app == app]
        for run in mine:
            self._terminate(run, "the engine stopped" if app is None else "its app was closed")
        for run in mine:
            await run.gone.wait()

    # --- operations ----------------------------------------------------------------------------------

    async def create(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Start a sandbox; answers when it runs."""
        spec = from_plain(SandboxSpec, fields["spec"])
        for port in spec.ports:
            check_port(port)
        named = (spec.app or "", spec.name or "")
        if spec.name is not None:
            if named in self._names:
                raise AlreadyExistsError(f"a sandbox {spec.name!r} of this app runs already")
            self._names.add(named)
        try:
            run = await self._start(spec)
        except BaseException:
            self._names.discard(named)
            raise
        self._engine.tasks.start_soon(self._free_name, run, named)
        self._forget_old()
        return Reply({"id": run.id})

    async def _start(self, spec: SandboxSpec) -> SandboxRun:
        image = await self._engine.builds.build(spec.image)
        run = SandboxRun(self._engine, _with_command(spec, image.cmd), image)
        self._runs[run.id] = run  # before it runs: an engine that stops must find it
        try:
            await self._engine.tasks.start(run.run)
        except BaseException:
            del self._runs[run.id]
            raise
        return run

    def find(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        return Reply(_shown(self._run(fields)))

    def named(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The running sandbox of that name, in a running or deployed app of that name."""
        for run in reversed(self._runs.values()):
            app = fields["app"] in (run.spec.app_name, run.spec.app)
            if app and run.spec.name == fields["name"] and run.running:
                return Reply({"id": run.id})
        raise NotFoundError(f"no sandbox {fields['name']!r} of app {fields['app']!r} runs")

    def list(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Those that run, newest first, of one app and with all of some tags where these are given."""
        app, tags = fields.get("app"), dict(fields.get("tags") or {})
        found = [
            run
            for run in reversed(self._runs.values())
            if run.running
            and (app is None or run.spec.app == app)
            and tags.items() <= run.tags.items()
        ]
        return Reply({"sandboxes": [_shown(run) for run in found]})

    async def wait(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """How it ended, or that it runs when `timeout` is over."""
        run = self._run(fields)
        with anyio.move_on_after(fields.get("timeout")), self._waiting(fields):
            await run.ended.wait()
        return Reply(_shown(run))

    async def ready(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Whether its probe has succeeded, within `timeout` seconds."""
        run = self._run(fields)
        if run.spec.probe is None:
            raise InvalidError(
                f"sandbox {run.id} has no probe: give Sandbox.create a readiness_probe, such as "
                "Probe.with_tcp(8000)"
            )
        with anyio.move_on_after(fields.get("timeout")), self._waiting(fields):
            if not run.ready:
                await wait_ready(run, run.spec.probe)
                run.ready = True
        return Reply({"ready": run.ready})

    async def terminate(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """End it; answers when it is gone. Not an error if it has ended."""
        run = self._run(fields)
        self._terminate(run, "it was terminated")
        await run.gone.wait()
        return Reply(_shown(run))

    def tags(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Replace its tags."""
        run = self._run(fields)
        run.tags = check_tags(fields["tags"])
        return Reply({})

    def tunnels(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        ports = self._run(fields).ports
        return Reply({"tunnels": [[inside, LOOPBACK, port] for inside, port in ports.items()]})

    async def snapshot(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Its files as an image."""
        return Reply({"image": encode(await self._run(fields).snapshot())})

    async def reload(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Commit what it has written into its volumes, and bring in what others have."""
        run = self._run(fields)
        run.alive()
        await self._engine.objects.volumes.reload_of(run.id)
        return Reply({})

    # --- processes -----------------------------------------------------------------------------------

    async def exec(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Start a process; answers when it runs."""
        process = await self._run(fields).start(from_plain(ProcessSpec, fields["spec"]))
        return Reply({"process": process.id})

    async def read(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Output from a position on: at least a byte, none at the end."""
        run = self._run(fields)
        process = self._process(run, fields)
        if process is None:
            await run.ended.wait()  # a sandbox without a command says nothing
            return Reply({"at": 0})
        with self._waiting(fields):
            at, data = await process.outputs[int(fields["stream"])].read(int(fields["at"]))
        run.touch()
        return Reply({"at": at}, Payload(data))

    async def write(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """Input, and whether it is the last; answers when the process has room for more."""
        run = self._run(fields)
        process = self._process(run, fields)
        if process is None:
            raise InvalidError("this sandbox has no command that could read")
        if payload.nbytes > MAX_INPUT_BYTES:
            raise ResourceExhaustedError(f"one write takes at most {MAX_INPUT_BYTES} bytes")
        run.touch()
        with self._waiting(fields):
            await process.write(bytes(payload.data), bool(fields.get("eof")))
        return Reply({})

    async def join(self, caller: Caller, fields: Fields, payload: Payload) -> Reply:
        """The exit code of a process, or none when `timeout` is over."""
        run = self._run(fields)
        process = self._process(run, fields)
        assert process is not None
        if fields.get("timeout") != 0:
            with anyio.move_on_after(fields.get("timeout")), self._waiting(fields):
                await process.ended.wait()
        return Reply({"returncode": process.returncode})

    # --- inside --------------------------------------------------------------------------------------

    def _waiting(self, fields: Fields) -> Any:
        return self._engine.waiting(fields.get("parent"))

    def _run(self, fields: Fields) -> SandboxRun:
        run = self._runs.get(fields["id"])
        if run is None:
            raise NotFoundError(f"no sandbox {fields['id']}; they end with their engine")
        return run

    def _process(self, run: SandboxRun, fields: Fields) -> SandboxProcess | None:
        process = run.processes.get(fields["process"])
        if process is None and fields["process"] != MAIN:
            raise NotFoundError(
                f"no process {fields['process']} in sandbox {run.id}, or it ended long ago"
            )
        return process

    def _terminate(self, run: SandboxRun, words: str) -> None:
        run.finish("terminated", 137, words)
        run.let_go()

    async def _free_name(self, run: SandboxRun, named: tuple[str, str]) -> None:
        await run.ended.wait()
        self._names.discard(named)

    def _forget_old(self) -> None:
        gone = [run for run in self._runs.values() if run.gone.is_set()]
        for run in gone[:-KEPT_OUTPUT]:
            run.processes.clear()
        for run in gone[:-KEPT]:
            del self._runs[run.id]


def _with_command(spec: SandboxSpec, default: tuple[str, ...]) -> SandboxSpec:

    return spec if spec.main.command else spec._replace(main=spec.main._replace(command=default))


def check_tags(tags: object) -> dict[str, str]:
    if not isinstance(tags, Mapping) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in tags.items()
    ):
        raise InvalidError("tags are a dict of text to text")
    if len(tags) > MAX_TAGS:
        raise InvalidError(f"a sandbox has at most {MAX_TAGS} tags")
    return dict(tags)


def _shown(run: SandboxRun) -> dict[str, Any]:
    end = run.end
    return {
        "id": run.id,
        "name": run.spec.name,
        "app": run.spec.app,
        "app_name": run.spec.app_name,
        "tags": run.tags,
        "state": end.state if end else "running",
        "returncode": end.returncode if end else None,
        "words": run.explain(),
    }
