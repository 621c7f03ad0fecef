"""From what the user wrote to what the engine needs: functions become `FunctionSpec`s.

Decides how a function travels. By name where the container can import its module from the source
snapshot; by value (cloudpickle) from notebooks, REPLs and with `serialized=True`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import context, pickling, tracebacks
from .call import source_paths
from .codec import to_plain
from .endpoints import labelled
from .errors import InvalidError
from .home import open_home
from .options import RESOURCE_OPTIONS, SCALING_OPTIONS, Options, variant_name
from .types import EMPTY, ByName, ByValue, FunctionSpec, RetryPolicy, VolumeMount

if TYPE_CHECKING:
    from .app import App
    from .cls import Cls
    from .function import Function
    from .home import Home
    from .image import Image
    from .layers import ImageSpec
    from .protocols import Client

MAX_BY_VALUE_BYTES = 16 << 20

DEFAULT_TIMEOUT = 300.0


async def image_spec(image: Image, home: Home | None) -> ImageSpec:
    """The layers of an image, after what its steps refer to has got its ids."""
    for secret_or_volume in image._dependencies():
        await secret_or_volume._resolve()
    return image.spec(home)


class Snapshots:
    """The source snapshots of one app run: each script or package is copied once."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._digests: dict[str, str] = {}
        self._notebook: str | None = None
        # Collecting reads every file of a package: once, however many functions a module has.
        self._modules: dict[str, tuple[str, str]] = {}

    def of_module(self, module: Any) -> tuple[str, str]:
        """(module name in the container, snapshot digest) of an imported module."""
        known = self._modules.get(module.__name__)
        if known is None:
            known = self._modules[module.__name__] = self._of(module)
        return known

    def _of(self, module: Any) -> tuple[str, str]:
        from . import sources

        collected = sources.collect(module)
        key = str(collected.root) + "\0" + collected.module
        if key not in self._digests:
            self._digests[key] = sources.snapshot(self.home, collected)
            source_paths[tracebacks.SOURCES_DIR] = str(collected.root)
        return collected.module, self._digests[key]

    def of_notebook(self) -> str | None:
        """The snapshot of the local modules that a notebook or a REPL has imported, if any."""
        from . import sources

        if getattr(sys.modules["__main__"], "__file__", None):
            return None
        if self._notebook is None:
            collected = sources.collect_imported(Path.cwd())
            self._notebook = sources.snapshot(self.home, collected) if collected.files else ""
            source_paths[tracebacks.SOURCES_DIR] = str(collected.root)
        return self._notebook or None


def travels_by_name(raw: Callable[..., Any] | type, serialized: bool) -> bool:
    """Whether a container can import it. Raises InvalidError where neither way is possible."""
    if serialized:
        return False
    module = sys.modules.get(raw.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None or not Path(file).exists():
        return False
    if "<locals>" in raw.__qualname__:
        raise InvalidError(
            f"{raw.__qualname__} is defined inside another function, so a container cannot import "
            "it by name. Move it to the top of its module, or decorate it with serialized=True."
        )
    return True


async def target_of(
    raw: Callable[..., Any] | type, options: Options, snapshots: Snapshots
) -> ByName | ByValue:
    """How the container gets at `raw`."""
    if travels_by_name(raw, options.serialized):
        name, digest = snapshots.of_module(sys.modules[raw.__module__])
        if raw.__module__ == "__main__":
            # The container aliases __main__ to this module, so classes travel by reference.
            pickling.main_is_importable = True
            sys.modules.setdefault(name, sys.modules["__main__"])
        return ByName(name, raw.__qualname__, digest)
    payload = pickling.dumps_by_value(raw, f"function {raw.__qualname__}")
    if payload.nbytes > MAX_BY_VALUE_BYTES:
        raise InvalidError(
            f"{raw.__qualname__} pickles to {payload.nbytes >> 20} MiB by value; the limit is 16 MiB. "
            "It closes over something large: pass that as an argument or put it in a Volume."
        )
    reply = await context.ask("blob.put", payload)
    sources = snapshots.of_notebook() if raw.__module__ == "__main__" else None
    return ByValue(reply.fields["digest"], pickling.python_version(), sources)


async def spec_of(
    app: App, app_id: str, function: Function[Any, Any, Any] | Cls[Any], snapshots: Snapshots
) -> FunctionSpec:
    """The spec of a function or class of `app`, with the app's defaults merged in."""
    options = function._options
    raw = function.raw
    assert raw is not None
    image = options.image or app._default_image()
    secrets = (*app._secrets, *(options.secrets or ()))
    volumes = {**app._volumes, **(options.volumes or {})}
    spec = FunctionSpec(
        app=app_id,
        name=function.name,
        target=await target_of(raw, options, snapshots),
        image=await image_spec(image, snapshots.home),
        resources=options.resources(),
        retries=options.retries or RetryPolicy(),
        scaling=options.scaling(),
        timeout=options.timeout or DEFAULT_TIMEOUT,
        startup_timeout=options.startup_timeout,
        env=tuple(sorted((options.env or {}).items())),
        secrets=await _secret_ids(secrets),
        volumes=await _volume_mounts(volumes),
        block_network=bool(options.block_network),
        single_use=bool(options.single_use_containers),
        schedule=options.schedule.spec() if options.schedule else None,
        runtime=options.runtime,
        **{**_decorated(raw), **function._spec_fields()},
    )
    return _with_labels(spec, app.name or script_stem())


def _with_labels(spec: FunctionSpec, app: str) -> FunctionSpec:
    """Endpoints whose label is not given get one: "app-function", or "app-class-method"."""
    web = labelled(spec.web, app, spec.name) if spec.web else None
    methods = tuple((name, labelled(each, app, spec.name, name)) for name, each in spec.web_methods)
    return spec._replace(web=web, web_methods=methods)


def script_stem() -> str:
    """A name for an app without one: its script's."""
    return Path(sys.argv[0] or "app").stem


def _decorated(raw: Any) -> dict[str, Any]:
    """Spec fields that @concurrent and @batched left on the function or class."""
    options = dict(getattr(raw, "__minimodal_options__", {}))
    return {k: v for k, v in options.items() if k in ("max_inputs", "target_inputs", "batching")}


async def _secret_ids(secrets: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple([await secret._resolve() for secret in secrets])


async def _volume_mounts(volumes: dict[str, Any]) -> tuple[VolumeMount, ...]:
    mounts = []
    for target, volume in volumes.items():
        mounts.append(await volume._mount_at(target))
    return tuple(mounts)


async def variant_key(client: Client, base: str, options: Options) -> str:
    """The key of the pool that is `base` with other options; the engine makes it on first use."""
    arguments = options.arguments
    reply = await context.ask(
        "function.variant",
        arguments.payload if arguments else EMPTY,
        client=client,
        key=base,
        **await variant_fields(options),
    )
    return str(reply.fields["key"])


async def variant_fields(options: Options) -> dict[str, Any]:
    """What `function.variant` changes, as plain data; the digest names the variant's pool."""
    changes: dict[str, Any] = {}
    for field, names in (("resources", RESOURCE_OPTIONS), ("scaling", SCALING_OPTIONS)):
        given = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
        if given:
            changes[field] = given
    if options.retries is not None:
        changes["retries"] = to_plain(options.retries)
    if options.batching is not None:
        changes["batching"] = to_plain(options.batching)
    if options.arguments is not None:
        changes["arguments"] = options.arguments.identity
    if options.max_inputs is not None:
        changes |= {"max_inputs": options.max_inputs, "target_inputs": options.target_inputs}
    for name in ("timeout", "startup_timeout", "block_network"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    if options.single_use_containers is not None:
        changes["single_use"] = options.single_use_containers
    if options.env is not None:
        changes["env"] = sorted(options.env.items())
    if options.image is not None:
        changes["image"] = to_plain(await image_spec(options.image, open_home()))
    if options.secrets is not None:
        changes["secrets"] = list(await _secret_ids(options.secrets))
    if options.volumes is not None:
        mounts = await _volume_mounts(dict(options.volumes))
        changes["volumes"] = [to_plain(m) for m in mounts]
    return {"changes": changes, "variant": variant_name(changes)}
