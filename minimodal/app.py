"""`App`: a named set of functions, and the decorators that put functions into it.

Importing a script only records what was decorated. `app.run()` sends it to the engine and keeps it
there for the length of the block; `app.deploy()` leaves it there; a `.remote()` outside both starts
an engine in this process and opens the app until the process ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from . import context
from .decorators import FunctionDecorator, LocalEntrypoint, check_web
from .errors import InvalidError, NotFoundError
from .face import BothContext, both, both_function
from .function import Function, endpoint_of
from .options import check
from .types import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Unpack

    from .cls import Cls
    from .image import Image
    from .option_types import ClsOptions, FunctionOptions
    from .protocols import Client
    from .server import Server as ServerClass

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


async def _find(
    name: str,
    *,
    client: Any = None,
    environment_name: str | None = None,
    create_if_missing: bool = False,
) -> App:
    """A handle to the app `name` of this home, for `Sandbox.create(app=…)`; it has no functions.

    Raises NotFoundError where none of that name is deployed or runs, unless `create_if_missing`.
    """
    del client, environment_name  # there is one of each
    app = App(name)
    if not create_if_missing:
        reply = await context.ask("app.list")
        if not any(each["name"] == name for each in reply.fields["apps"]):
            raise NotFoundError(
                f"no app {name!r} is deployed or runs in this home; create_if_missing=True makes one"
            )
    return app


class App:
    """A set of functions, classes and entrypoints that are run or deployed together.

    Parameters: `name`, which `deploy` needs; `tags`, words for listings; `include_source` is Modal's, and
    without effect; `image`, `secrets` and `volumes` are defaults for its functions; secrets are applied
    before a function's own, volumes are merged by path. Raises InvalidError.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        image: Image | None = None,
        secrets: Sequence[Any] = (),
        volumes: Mapping[str, Any] | None = None,
        include_source: bool = True,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise InvalidError(f"App(name) must be a text, not {name!r}")
        checked = check("App", {"image": image, "secrets": secrets, "volumes": volumes})
        del include_source
        self._name = name
        self._tags = dict(tags or {})
        self._image = checked.image
        self._secrets = (*context.run_secrets, *(checked.secrets or ()))
        self._file = sys._getframe(1).f_globals.get("__file__")  # PEP 723: see _default_image
        self._volumes = dict(checked.volumes or {})
        self.registered_functions: dict[str, Function[..., Any, Any]] = {}
        self.registered_classes: dict[str, Cls[Any]] = {}
        self.registered_entrypoints: dict[str, LocalEntrypoint[..., Any]] = {}
        self._open: tuple[Client, str] | None = None
        self._explicit = False  # opened by run(), not ambiently
        self._cell = 0  # of a notebook, in which it was sent
        self._served_by: Client | None = None  # the engine elsewhere that it was deployed to

    def __repr__(self) -> str:
        return f"<App {self._name or 'unnamed'}>"

    def _repr_html_(self) -> str:
        from .display import card

        rows = {
            "id": self.app_id,
            "functions": list(self.registered_functions),
            "classes": list(self.registered_classes),
            "entrypoints": list(self.registered_entrypoints),
            "tags": [f"{name}={value}" for name, value in self._tags.items()],
        }
        return card("App", self._name or "unnamed", rows)

    @property
    def name(self) -> str | None:
        """Its name; None for an app that was given none."""
        return self._name

    @property
    def app_id(self) -> str | None:
        """The id while it runs, None before."""
        return self._open[1] if self._open else None

    @property
    def registered_web_endpoints(self) -> list[str]:
        """The names of its functions that answer HTTP."""
        functions = self.registered_functions.items()
        return [name for name, function in functions if endpoint_of(function.raw) is not None]

    @property
    def description(self) -> str | None:
        """Its name, as Modal's apps have it."""
        return self._name

    # --- decorators --------------------------------------------------------------------------------

    def function(
        self, _wrong: Any = None, /, **options: Unpack[FunctionOptions]
    ) -> FunctionDecorator:
        """Register a function: `@app.function(cpu=1, memory=512, timeout=60, …)`.

        The options, with Modal's names: image, secrets, env, volumes, cpu, memory (MiB), gpu, timeout
        (seconds for each attempt), startup_timeout, retries, min_containers, max_containers,
        buffer_containers, scaledown_window (seconds), single_use_containers, schedule, serialized,
        name, is_generator, block_network. Raises InvalidError for a wrong one.
        """
        if _wrong is not None:
            raise InvalidError("@app.function needs parentheses: write @app.function()")
        return FunctionDecorator(self, options)

    def cls(
        self, _wrong: Any = None, /, **options: Unpack[ClsOptions]
    ) -> Callable[[type[T]], Cls[T]]:
        """Register a class whose methods run in containers that keep its state.

        Takes the options of `@app.function` but schedule, name and is_generator. What is marked with
        @enter runs when a container starts, @exit when it ends; @method makes a method callable by
        `.remote()`. Raises InvalidError for a wrong option, and for a class that cannot work.
        """
        if _wrong is not None:
            raise InvalidError("@app.cls needs parentheses: write @app.cls()")
        from .cls import decorate

        return decorate(self, options)

    def server(
        self,
        _wrong: Any = None,
        /,
        *,
        port: int = 8000,
        target_concurrency: float | None = None,
        unauthenticated: bool = False,
        exit_grace_period: float | None = None,
        compute_region: str | Sequence[str] | None = None,
        **options: Unpack[ClsOptions],
    ) -> Callable[[type[T]], ServerClass[T]]:
        """Register a class whose `@enter` starts an HTTP server on `port`: requests are passed on to it.

        Requests need a token of the platform (`minimodal token create`) unless `unauthenticated`.
        `target_concurrency`: how many a container is to have at once. It counts as started when the
        port accepts connections, `startup_timeout` seconds (30) after `@enter` at the latest. Modal's
        `compute_region`, `routing_region` and `exit_grace_period` have no effect. The other options are
        those of `@app.cls`. Raises InvalidError for a wrong option, and for a class without `@enter`.
        """
        if _wrong is not None:
            raise InvalidError("@app.server needs parentheses: write @app.server(port=8000)")
        from .cls import decorate
        from .server import Server, serving

        del exit_grace_period, compute_region
        options.pop("routing_region", None)
        seconds = options.get("startup_timeout") or 30
        options["startup_timeout"] = max(seconds, 300)  # the start of the container, too
        serve = serving("@app.server", port, seconds, not unauthenticated, target_concurrency)

        def wrap(raw: type[T]) -> ServerClass[T]:
            made = decorate(self, options)(serve(raw))
            assert isinstance(made, Server)
            return made

        return wrap

    def web_endpoint(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        label: str | None = None,
        requires_proxy_auth: bool = False,
    ) -> Callable[[Any], Function[..., Any, Any]]:
        """Answer requests for a path with this function, without any web framework.

        Parts of the path in braces, the query and a JSON body's fields become its arguments by name;
        a parameter annotated `WebRequest` gets the whole request. It returns something JSON-able,
        text, bytes, a pair (body, status), or a `WebResponse`. Stands above or below
        `@app.function(…)`, or alone. All endpoints of an app share one host name, its name or `label`;
        the path chooses. With `requires_proxy_auth` it answers 401 without a token of the platform.
        Raises InvalidError for a wrong path, method or function.
        """
        from .endpoints import mark, simple_endpoint

        if not isinstance(path, str):
            raise InvalidError('@app.web_endpoint needs a path: @app.web_endpoint("/hello")')
        endpoint = simple_endpoint(path, method, label, requires_proxy_auth)

        def register(raw: Any) -> Function[..., Any, Any]:
            if isinstance(raw, Function):
                mark(raw.raw, endpoint, "@app.web_endpoint")  # type: ignore[arg-type]  # it has code
                check_web(raw)
                return raw
            mark(raw, endpoint, "@app.web_endpoint")
            function: Function[..., Any, Any] = self.function()(raw)
            function._implicit = True
            return function

        return register

    def local_entrypoint(
        self, _wrong: Any = None, /, *, name: str | None = None
    ) -> Callable[[Callable[P, R]], LocalEntrypoint[P, R]]:
        """Mark the function that `minimodal run script.py` starts here, in this process.

        `name` is what stands behind `::` on the command line, by default the function's own. Raises
        InvalidError for a second one of a name.
        """
        if _wrong is not None:
            raise InvalidError("@app.local_entrypoint needs parentheses: @app.local_entrypoint()")

        def register(raw: Callable[P, R]) -> LocalEntrypoint[P, R]:
            tag = name or raw.__name__
            if tag in self.registered_entrypoints and not _interactive():
                raise InvalidError(f"{self!r} has two local entrypoints called {tag!r}")
            entry = LocalEntrypoint(raw, self, tag)
            self.registered_entrypoints[tag] = entry
            return entry

        return register

    def include(self, other: App, inherit_tags: bool = True) -> App:
        """Take over the functions and classes of `other`, and its tags with `inherit_tags`."""
        taken: list[tuple[dict[str, Any], dict[str, Any]]] = [
            (self.registered_functions, other.registered_functions),
            (self.registered_classes, other.registered_classes),
        ]
        for mine, theirs in taken:
            for tag, thing in theirs.items():
                _warn_if_taken(self, tag, mine)
                mine[tag] = thing
                thing._app = self
        if inherit_tags:
            self._tags = {**other._tags, **self._tags}
        return self

    lookup = both_function(_find)

    @both
    async def set_tags(self, tags: Mapping[str, str]) -> None:
        """Replace its tags, which are words for people. Raises InvalidError for what is no text."""
        for name, value in tags.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise InvalidError(f"tags are texts, not {name!r}: {value!r}")
        self._tags = dict(tags)

    @both
    async def get_tags(self) -> dict[str, str]:
        """Its tags."""
        return dict(self._tags)

    def _register(self, thing: Any, registered: dict[str, Any]) -> None:
        """Take a Function or a Cls into the table of its kind."""
        _warn_if_taken(self, thing.name, registered)
        registered[thing.name] = thing
        self._changed()

    def _changed(self) -> None:
        self._cell = -1  # a notebook's cell was run again: the next call sends the new one
        if self._open is not None and self._open[1] == self._name:
            self._open = None  # what is deployed stays as it is

    @property
    def image(self) -> Image:
        """The image of its functions that name none; may be set until it runs."""
        return self._default_image()

    @image.setter
    def image(self, image: Image | None) -> None:
        self._image = check("App", {"image": image}).image
        self._changed()

    def _default_image(self) -> Image:
        """Python, with the dependencies that the script's `# /// script` block names (PEP 723)."""
        from .image import Image
        from .inline import inline_dependencies

        if self._image is None:
            packages = inline_dependencies(self._file)
            self._image = Image.debian_slim().uv_pip_install(*packages)
        return self._image

    # --- running -----------------------------------------------------------------------------------

    def run(
        self,
        *,
        name: str | None = None,
        client: Any = None,
        detach: bool = False,
        interactive: bool = False,
        environment_name: str | None = None,
    ) -> AppRun:
        """Run the app for the length of a block: `with app.run():` or `async with app.run():`.

        Leaving the block stops all that it started. `name` is that of this run; `detach` and
        `interactive` are Modal's, and without effect: the command line has `--detach` and `-i`.
        Raises InvalidError where the app runs already.
        """
        del client, detach, interactive, environment_name
        if context.container is not None:
            raise InvalidError(
                "app.run() was called while a container imports the module; put it "
                "under `if __name__ == '__main__':`"
            )
        if self._explicit:
            raise InvalidError(f"{self!r} is already running")
        return AppRun(self, name)

    @both
    async def deploy(self, /, *, name: str | None = None, tag: str = "") -> App:
        """Record a version of the app under its name, and serve it. `from_name` finds its functions.

        It is served by the `minimodal up` of this home; where none runs, by this process while it
        lives, and by the next `minimodal up`. `tag` is a note for `minimodal app history`. Raises
        InvalidError where the app has no name; StartupError where a container does not start, and
        then the version before goes on.
        """
        from .lookup import running_up

        if context.container is not None:
            raise InvalidError("app.deploy() was called inside a container")
        self._name = name or self._name
        if not self._name:
            raise InvalidError("an app needs a name to be deployed: App('name') or deploy(name=…)")
        await self._deploy(running_up() or context.get_client(), tag, host=True)
        return self

    async def _deploy(self, client: Client, note: str, host: bool) -> int:
        """Send it to an engine to be recorded as a version; `host` False: it only tries it."""
        assert self._name
        with context.using(client):
            functions = await self._specs(self._name)
            reply = await context.ask(
                "app.deploy", name=self._name, functions=functions, note=note, host=host
            )
        if host:
            self._open = (client, self._name)
            self._served_by = client if client is not context.running_client() else None
        return int(reply.fields["version"])

    async def _resolve(self, client: Client) -> str:
        """The app's id at the client; opens it there if nobody has."""
        here = context.container
        if here is not None:
            return here.app_id if self._name == (here.app_name or None) else str(self._name)
        if self._open is None or self._open[0] is not client:
            await self._send(client, new_id("ap"))
        elif self._is_stale():
            await self._send(client, self._open[1])
        assert self._open is not None
        return self._open[1]

    def _is_stale(self) -> bool:
        """Whether what was sent may not be what is meant now.

        The functions of a notebook travel with all that they use, which any cell may have changed
        since: then they are sent again. The engine keeps the pools of those that are the same, and
        lets the old version of another finish its calls.
        """
        if self._open is None or self._explicit or self._open[1] == self._name:
            return False
        return self._cell == -1 or self._cell != context.cell()

    async def _specs(self, app_id: str) -> list[Any]:
        from .codec import to_plain
        from .home import open_home
        from .specs import Snapshots, spec_of

        snapshots = Snapshots(open_home())
        registered: list[Any] = [
            *self.registered_functions.values(),
            *self.registered_classes.values(),
        ]
        return [to_plain(await spec_of(self, app_id, each, snapshots)) for each in registered]

    async def _send(self, client: Client, app_id: str, *, keep: bool = False) -> None:
        """Open it at an engine. `keep`: it stays there when this process ends."""
        cell = context.cell()
        functions = await self._specs(app_id)
        await context.ask(
            "app.open",
            id=app_id,
            name=self._name or "",
            description=self._name or _script_name(),
            deployed=False,
            keep=keep,
            functions=functions,
        )
        self._open, self._cell = (client, app_id), cell

    async def _close(self) -> None:
        if self._open is not None:
            client, app_id = self._open
            self._open = None
            self._explicit = False
            await context.ask("app.close", client=client, id=app_id)


class AppRun(BothContext["App"]):
    """Made by `app.run()`: its block, for `with` and `async with`."""

    def __init__(self, app: App, name: str | None) -> None:
        self._app = app
        if name:
            app._name = name

    async def _enter(self) -> App:
        self._app._explicit = True
        try:
            await self._app._send(context.get_client(), new_id("ap"))
        except BaseException:
            self._app._explicit = False
            raise
        return self._app

    async def _leave(self, error: BaseException | None) -> None:
        await self._app._close()


def _warn_if_taken(app: App, tag: str, registered: Mapping[str, Any]) -> None:
    if tag in registered and not _interactive():
        import warnings

        warnings.warn(
            f"{app!r} has two functions called {tag!r}; the later one counts. "
            "Rename one, or give it name=…",
            stacklevel=4,
        )


def _interactive() -> bool:
    return hasattr(sys, "ps1") or "IPython" in sys.modules


def _script_name() -> str:
    import os

    return os.path.basename(sys.argv[0] or "notebook") or "app"


@contextmanager
def enable_output(show_progress: bool = True) -> Iterator[None]:
    """Show what functions print in this block, as `minimodal run` does.

    `show_progress`: also what is built and started, and how far maps are.
    """
    context.output_blocks += 1
    context.show_progress = show_progress
    try:
        yield
    finally:
        context.output_blocks -= 1
