"""`Sandbox`: a container of its own, made at run time, to run any commands in.

It ends when its command does, when its time is over, when it is terminated, and with the app and
the engine that it was made in.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import context
from .codec import to_plain
from .compat import Absent
from .errors import (
    ExecutionError,
    InvalidError,
    SandboxTerminatedError,
    SandboxTimeoutError,
    TimeoutError,
)
from .face import both, both_function
from .layers import decode
from .options import check
from .recipe import Fixed, Ready
from .sandbox_files import Filesystem, SandboxFile, opened
from .sandbox_process import ContainerProcess, StreamReader, StreamType, StreamWriter
from .sandbox_spec import Probe, ProcessSpec, SandboxSpec, Terminal
from .tunnel import Tunnel

if TYPE_CHECKING:
    from .app import App
    from .image import Image

DEFAULT_TIMEOUT = 300.0
MAIN = "main"


async def _create(
    *entrypoint_args: str,
    app: App | None = None,
    name: str | None = None,
    tags: Mapping[str, str] | None = None,
    image: Image | None = None,
    env: Mapping[str, str] | None = None,
    secrets: Sequence[Any] = (),
    timeout: float = DEFAULT_TIMEOUT,
    idle_timeout: float | None = None,
    workdir: str | None = None,
    cpu: float | tuple[float, float] | None = None,
    memory: int | tuple[int, int] | None = None,
    gpu: str | None = None,
    block_network: bool = False,
    volumes: Mapping[str, Any] | None = None,
    pty: bool = False,
    encrypted_ports: Sequence[int] = (),
    h2_ports: Sequence[int] = (),
    unencrypted_ports: Sequence[int] = (),
    readiness_probe: Probe | None = None,
    verbose: bool = False,
    runtime: str | None = None,
    **ignored: Any,
) -> Sandbox:
    """Start a sandbox: `Sandbox.create("python", "-c", "…", app=app, timeout=60)`.

    Without a command, `entrypoint_args`, it runs the image's default one, or just stays, for `exec`.

    Parameters: `timeout`, seconds that it may live; `idle_timeout`, seconds without a process of
    `exec` and without traffic, after which it is terminated; `memory`, MiB, and `cpu`, cores, each a
    request or a pair (request, limit); `workdir`, an absolute path; `encrypted_ports` and the like,
    ports (`h2_ports` and `unencrypted_ports` too) that `tunnels()` makes reachable on this machine
    (nothing is encrypted on the way: it does
    not leave it); `readiness_probe`, what `wait_until_ready` asks; `verbose`, show its output here and not in `stdout`; `app`, which ends it when it
    is closed, and whose image is the default; `runtime`, an OCI runtime of Docker's; `gpu`, `volumes` and
    `block_network` are as for `@app.function`. What Modal has beside: see compat.py.

    Raises InvalidError, ImageBuildError, LaunchError, AlreadyExistsError where a sandbox of that
    name and app runs, ResourceExhaustedError where the sandboxes together would not fit.
    """
    options = check(
        "Sandbox.create",
        {
            **ignored,
            "image": image,
            "env": env,
            "secrets": secrets,
            "timeout": timeout,
            "cpu": cpu,
            "memory": memory,
            "gpu": gpu,
            "volumes": volumes,
            "runtime": runtime,
            "name": name,
        },
    )
    _check_seconds("idle_timeout", idle_timeout)
    if not isinstance(readiness_probe, Probe | None):
        raise InvalidError(
            f"Sandbox.create: readiness_probe is a Probe, not {readiness_probe!r}: write "
            "Probe.with_tcp(port) or Probe.with_exec('program', 'argument')"
        )
    where = "log" if verbose else "pipe"
    main = await _process(
        entrypoint_args, env, secrets, workdir, None, where, where, pty, what="Sandbox.create"
    )
    from .home import open_home
    from .image import Image
    from .specs import _volume_mounts, image_spec

    default = app._default_image() if app is not None else Image.debian_slim()
    app_id, app_name = await _app(app)
    spec = SandboxSpec(
        app=app_id,
        app_name=app_name,
        main=main,
        # A container has no home, and needs none but for files that are mounted.
        image=await image_spec(image or default, None if context.container else open_home()),
        name=name,
        tags=tuple((tags or {}).items()),
        resources=options.resources(),
        volumes=await _volume_mounts(dict(options.volumes or {})),
        timeout=float(timeout),
        idle_timeout=idle_timeout,
        block_network=bool(block_network),
        ports=tuple(dict.fromkeys((*encrypted_ports, *h2_ports, *unencrypted_ports))),
        runtime=runtime,
        probe=readiness_probe,
    )
    reply = await context.ask("sandbox.create", spec=to_plain(spec))
    return Sandbox(str(reply.fields["id"]), pty=pty)


async def _from_id(sandbox_id: str) -> Sandbox:
    """The sandbox of that id, running or ended. Raises NotFoundError."""
    if not isinstance(sandbox_id, str) or not sandbox_id.startswith("sb-"):
        raise InvalidError(f"{sandbox_id!r} is no sandbox's id; those start with 'sb-'")
    await context.ask("sandbox.find", id=sandbox_id)
    return Sandbox(sandbox_id)


async def _from_name(app_name: str, name: str, *, environment_name: str | None = None) -> Sandbox:
    """The running sandbox `name` of the app `app_name`, or of that id. Raises NotFoundError."""
    del environment_name
    reply = await context.ask("sandbox.named", app=app_name, name=name)
    return Sandbox(str(reply.fields["id"]))


async def _list(
    *, app_id: str | None = None, tags: Mapping[str, str] | None = None
) -> list[Sandbox]:
    """The running sandboxes, newest first: of the app `app_id`, with all of `tags`, where these are given."""
    reply = await context.ask("sandbox.list", app=app_id, tags=dict(tags or {}))
    return [Sandbox(each["id"]) for each in reply.fields["sandboxes"]]


class Sandbox:
    """A running container. `create`, `from_id`, `from_name` and `list` make handles of one.

    A handle can be passed to functions, which then use the same sandbox. Files are named by an absolute
    `path`; programs take `workdir`, an absolute path, and `env` and `secrets`, variables for them alone.
    """

    create = both_function(_create)
    from_id = both_function(_from_id)
    from_name = both_function(_from_name)
    list = both_function(_list)
    create_connect_token = Absent("Sandbox.create_connect_token")
    mount_image = Absent("Sandbox.mount_image")
    snapshot_directory = Absent("Sandbox.snapshot_directory")

    def __init__(self, object_id: str, *, pty: bool = False) -> None:
        self._id = object_id
        self._main: ContainerProcess[str] = ContainerProcess(
            object_id, MAIN, by_line=not pty, pty=pty
        )
        self._returncode: int | None = None

    def __repr__(self) -> str:
        return f"<Sandbox {self._id}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Sandbox, (self._id,)

    @property
    def object_id(self) -> str:
        """The id, such as "sb-3f2a…"."""
        return self._id

    @property
    def stdin(self) -> StreamWriter:
        """Input of its command."""
        return self._main.stdin

    @property
    def stdout(self) -> StreamReader[str]:
        """Output of its command, by line."""
        return self._main.stdout

    @property
    def stderr(self) -> StreamReader[str]:
        """Errors of its command, by line."""
        return self._main.stderr

    @property
    def returncode(self) -> int | None:
        """The exit code that `wait` or `poll` saw; None while it ran."""
        return self._returncode

    @property
    def filesystem(self) -> Filesystem:
        """Read and change its files."""
        return Filesystem(self._id)

    # --- its life ----------------------------------------------------------------------------------

    @both
    async def wait(self, /, raise_on_termination: bool = True) -> None:
        """Wait for its end; then `returncode` is known.

        Raises SandboxTimeoutError where its time was over, ExecutionError where its container was
        lost, SandboxTerminatedError where it was terminated, unless `raise_on_termination=False`.
        """
        found = (await context.ask("sandbox.wait", id=self._id)).fields
        self._returncode = found["returncode"]
        words = f"sandbox {self._id}: {found['words']}"
        match found["state"]:
            case "timeout":
                raise SandboxTimeoutError(words)
            case "terminated" if raise_on_termination:
                raise SandboxTerminatedError(words)
            case "lost":
                raise ExecutionError(words)

    @both
    async def wait_until_ready(self, /, *, timeout: float = 300) -> None:
        """Wait until the `readiness_probe` that was given to `create` has succeeded once.

        Raises TimeoutError (of minimodal.exception) after `timeout` seconds, SandboxTerminatedError where
        it ends before, InvalidError where it has no probe.
        """
        _check_seconds("timeout", timeout)
        if not (await context.ask("sandbox.ready", id=self._id, timeout=timeout)).fields["ready"]:
            raise TimeoutError(f"sandbox {self._id} was not ready after {timeout:g} s")

    @both
    async def poll(self, /) -> int | None:
        """The exit code, or None while it runs. 124: its time was over; 137: terminated."""
        self._returncode = (await context.ask("sandbox.find", id=self._id)).fields["returncode"]
        return self._returncode

    @both
    async def terminate(self, /, *, wait: bool = True) -> int | None:
        """End it and all that runs in it; it is gone when this returns, with or without `wait`.

        Not an error if it ended.
        """
        del wait  # what takes Modal a while is done here in milliseconds
        self._returncode = (await context.ask("sandbox.terminate", id=self._id)).fields[
            "returncode"
        ]
        return self._returncode

    @both
    async def detach(self, /) -> None:
        """Accepted for scripts that call Modal's: a handle holds no connection."""

    # --- processes ---------------------------------------------------------------------------------

    @both
    async def exec(
        self,
        /,
        *args: str,
        stdout: str = StreamType.PIPE,
        stderr: str = StreamType.PIPE,
        timeout: float | None = None,
        workdir: str | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Sequence[Any] = (),
        text: bool = True,
        bufsize: int = -1,
        pty: bool = False,
    ) -> ContainerProcess[Any]:
        """Start a program (no shell) in the sandbox: `sb.exec("ls", "-l").stdout.read()`.

        Parameters: `timeout`, seconds after which it is killed and its exit code is -1; `text=False`,
        streams of bytes; `bufsize=1`, iterate by line; `pty`, a terminal of its own, stdout and
        stderr in one; `stdout` and `stderr`, a `StreamType`. A program that is not there gives the
        exit code 127. Raises SandboxTerminatedError where the sandbox has ended.
        """
        if not args:
            raise InvalidError("Sandbox.exec needs a program: sb.exec('ls')")
        if bufsize not in (-1, 1):
            raise InvalidError("bufsize is -1 (as it comes) or 1 (by line)")
        if bufsize == 1 and not text:
            raise InvalidError("bufsize=1, by line, needs text=True")
        spec = await _process(args, env, secrets, workdir, timeout, stdout, stderr, pty)
        reply = await context.ask("sandbox.exec", id=self._id, spec=to_plain(spec))
        process = str(reply.fields["process"])
        return ContainerProcess(self._id, process, text=text, by_line=bufsize == 1, pty=pty)

    # --- files, ports, tags ------------------------------------------------------------------------

    @both
    async def open(self, /, path: str, mode: str = "r") -> SandboxFile[Any]:
        """A file of the sandbox, in a `mode` of Python's; what is written is stored by `flush` or `close`."""
        return await opened(self.filesystem, path, mode)

    @both
    async def ls(self, /, path: str) -> Sequence[str]:
        """The names in a directory. Raises FileNotFoundError, NotADirectoryError."""
        return [entry.name for entry in await self.filesystem._list(path)]

    @both
    async def mkdir(self, /, path: str, parents: bool = False) -> None:
        """Make a directory; with `parents` also those above it, and it may exist."""
        await self.filesystem._make(path, parents)

    @both
    async def rm(self, /, path: str, recursive: bool = False) -> None:
        """Remove a file, or a directory: an empty one, or with `recursive` all that is in it."""
        await self.filesystem._remove(path, recursive)

    @both
    async def snapshot_filesystem(self, /, timeout: float = 55) -> Image:
        """Its files as an Image, which other sandboxes and functions can start from.

        Volumes are no part of it; on bubblewrap /tmp is none either. `timeout`: seconds.
        Raises ConflictError on the process backend, whose containers have no files of their own.
        """
        from .image import Image

        reply = await context.ask("sandbox.snapshot", id=self._id, wait=timeout)
        spec = decode(reply.fields["image"])
        mounts = tuple(Fixed(mount) for mount in spec.mounts)
        return Image(tuple(Ready(layer) for layer in spec.layers), mounts)

    @both
    async def reload_volumes(self, /) -> None:
        """Commit what it has written into its volumes, and bring in what others have committed.

        Raises SandboxTerminatedError where it has ended.
        """
        await context.ask("sandbox.reload", id=self._id)

    @both
    async def tunnels(self, /, timeout: float = 50) -> dict[int, Tunnel]:
        """Where the ports that were given to `create` can be reached on this machine, within `timeout` seconds."""
        reply = await context.ask("sandbox.tunnels", id=self._id, wait=timeout)
        return {inside: Tunnel(host, port) for inside, host, port in reply.fields["tunnels"]}

    @both
    async def set_tags(self, /, tags: Mapping[str, str]) -> None:
        """Replace its tags."""
        await context.ask("sandbox.tags", id=self._id, tags=dict(tags))

    @both
    async def get_tags(self, /) -> dict[str, str]:
        """Its tags."""
        return dict((await context.ask("sandbox.find", id=self._id)).fields["tags"])


async def _app(app: App | None) -> tuple[str | None, str]:
    """(id, name) of the app that a sandbox belongs to; in a container by default the function's."""
    if app is not None:
        app_id = await app._resolve(context.get_client())
        return app_id, app.name or app_id
    here = context.container
    return (here.app_id, here.app_name) if here is not None else (None, "")


async def _process(
    args: Sequence[str],
    env: Mapping[str, str] | None,
    secrets: Sequence[Any],
    workdir: str | None,
    timeout: float | None,
    stdout: str,
    stderr: str,
    pty: bool,
    *,
    what: str = "Sandbox.exec",
) -> ProcessSpec:
    from .specs import _secret_ids

    for arg in args:
        if not isinstance(arg, str) or "\0" in arg:
            raise InvalidError(f"{what} takes the program and its arguments as texts, not {arg!r}")
    if workdir is not None and not (isinstance(workdir, str) and workdir.startswith("/")):
        raise InvalidError(f"{what}: workdir must be an absolute path, not {workdir!r}")
    _check_seconds("timeout", timeout)
    checked = check(what, {"env": env, "secrets": secrets})
    return ProcessSpec(
        command=tuple(args),
        env=tuple((checked.env or {}).items()),
        secrets=await _secret_ids(checked.secrets or ()),
        workdir=workdir,
        timeout=timeout,
        stdout=StreamType.check("stdout", stdout),
        stderr=StreamType.check("stderr", stderr),
        terminal=_terminal() if pty else None,
    )


def _terminal() -> Terminal:
    """As large as the one that this program runs on, if it does."""
    try:
        columns, lines = os.get_terminal_size(0)  # not LINES and COLUMNS: those do not follow it
    except OSError:
        columns, lines = 80, 24
    return Terminal(lines or 24, columns or 80)


def _check_seconds(what: str, value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0
    ):
        raise InvalidError(f"{what} is a number of seconds above 0, not {value!r}")
