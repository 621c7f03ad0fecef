"""What of Modal's makes no sense on one machine: said at once, or safe to leave out.

Scripts for Modal run with `import minimodal as modal`. Three kinds of things differ:

*Ignored silently*, because leaving them out changes no result (`SAFE`):

- `nonpreemptible`: nothing is preempted here
- `enable_memory_snapshot`: a start is warm anyway; `@enter(snap=True)` runs once for each container's
  first process, which the others are forked from
- `experimental_options`: hints of Modal's scheduler
- `ephemeral_disk`: containers share this machine's disk
- `include_source`: the sources are sent as they are imported
- `environment_name`, `client`, `version`: there is one environment, and no account

*Refused with an InvalidError* where they are given, because leaving them out would change what the
script does or who can reach it (`REFUSED`): regions, clouds, proxies, private networks, network file
systems. `MINIMODAL_COMPAT=ignore` leaves them out all the same.

*Importable, but an InvalidError when used* (`ABSENT`, `ABSENT_METHODS`): names such as `CloudBucketMount`
and `Image.micromamba`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NoReturn

from .context import is_local
from .errors import InvalidError

SAFE = frozenset(
    "nonpreemptible enable_memory_snapshot experimental_options ephemeral_disk include_source".split()
)
"""Options that are accepted and have no effect."""

REFUSED: Mapping[str, str] = {
    "cloud": "everything runs on this machine",
    "region": "everything runs on this machine",
    "routing_region": "everything runs on this machine",
    "proxy": "its traffic would leave with this machine's own address",
    "i6pn": "containers have no network of their own kind; use a Queue, or forward()",
    "restrict_modal_access": "it would not be enforced; a Sandbox reaches no function or object",
    "network_file_systems": "there are none; use a Volume",
}
"""Options that are refused, and why."""

ABSENT: Mapping[str, str] = {
    "Client": "there is no account to connect to; leave it out",
    "CloudBucketMount": "no bucket is mounted here; use a Volume, or the bucket's own client",
    "Cluster": "there is one machine",
    "Environment": "there is one environment; MINIMODAL_HOME chooses another set of everything",
    "NetworkFileSystem": "use a Volume",
    "Proxy": "traffic leaves with this machine's own address",
    "SandboxSnapshot": "use Sandbox.snapshot_filesystem(), which gives an Image",
    "SchedulerPlacement": "everything runs on this machine",
    "Workspace": "there is no account",
    "billing": "nothing is billed",
    "clustered": "there is one machine",
    "sessioned": "keep the state of a session in a Dict, or in an object of a class",
}
"""Names of Modal's that can be imported, and why they cannot be used."""

_REGISTRY = "log in with `docker login`, and use Image.from_registry(tag)"
_BY_CONTENT = "keep the Image in a variable: built once, it is found by what it consists of"

ABSENT_METHODS: Mapping[str, str] = {
    "Image.from_aws_ecr": _REGISTRY,
    "Image.from_gcp_artifact_registry": _REGISTRY,
    "Image.from_id": _BY_CONTENT,
    "Image.from_name": _BY_CONTENT,
    "Image.from_scratch": "use Image.from_registry(tag) or from_dockerfile(path): an agent needs Python",
    "Image.micromamba": "use Image.from_registry(tag) of an image with it, or uv_pip_install",
    "Image.poetry_install_from_file": "use uv_sync, or `poetry export` and pip_install_from_requirements",
    "Image.publish": _BY_CONTENT,
    "Sandbox.create_connect_token": "tunnels() are reached from this machine alone",
    "Sandbox.mount_image": "give Sandbox.create the image",
    "Sandbox.snapshot_directory": "use snapshot_filesystem(), or a Volume",
}
"""Methods of Modal's that classes here lack, and what there is instead."""

GONE: Mapping[str, str] = {
    "Stub": "App",
    "NetworkFileSystemHandle": "Volume",
    "asgi": "asgi_app",
    "wsgi": "wsgi_app",
    "build": "Image.run_function",
    "Mount": "Image.add_local_dir",
    "SharedVolume": "Volume",
}
"""Names that Modal has removed, and what is written today."""


RENAMED: Mapping[str, str] = {
    "allow_concurrent_inputs": "@concurrent(max_inputs=…) below it",
    "concurrency_limit": "max_containers=…",
    "container_idle_timeout": "scaledown_window=…",
    "keep_warm": "min_containers=…",
    "max_inputs": "single_use_containers=True",
    "mounts": "image=Image.debian_slim().add_local_dir(…)",
}
"""Options that Modal has removed, and what is written today."""


def check_option(what: str, name: str, value: Any) -> None:
    """Raise InvalidError where an option is given that one machine cannot honour."""
    ignores = os.environ.get("MINIMODAL_COMPAT") == "ignore"
    if name in REFUSED and value and not ignores and is_local():
        raise InvalidError(
            f"{what}: {name}={value!r} makes no sense on one machine: {REFUSED[name]}. Take it out, "
            "or set MINIMODAL_COMPAT=ignore to run without it"
        )


def check_build_gpu(gpu: object) -> None:
    """Raise InvalidError for a build step that asks for a GPU: there is none while an image is built."""
    ignores = {os.environ.get("MINIMODAL_GPU"), os.environ.get("MINIMODAL_COMPAT")}
    if gpu and "ignore" not in ignores and is_local():
        raise InvalidError(
            f"a build step asks for gpu={gpu!r}, and images are built without one here. Take it out, "
            "or set MINIMODAL_GPU=ignore to run the step on the CPU"
        )


class Absent:
    """Stands for a name of Modal's that one machine cannot have. Importing it works, using it not."""

    def __init__(self, name: str) -> None:
        self._minimodal_name = name

    def __repr__(self) -> str:
        return f"<{self._minimodal_name}: not on one machine>"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self._refuse()

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # what introspection looks for
            raise AttributeError(name)
        self._refuse()

    def _refuse(self) -> NoReturn:
        name = self._minimodal_name
        why = ABSENT.get(name) or ABSENT_METHODS[name]
        raise InvalidError(f"minimodal has no {name}: {why}")


def absent(name: str) -> Absent:
    """The stand-in for a name of Modal's. Raises AttributeError where Modal has none such either."""
    if name in ABSENT:
        return Absent(name)
    hint = f": write minimodal.{GONE[name]}" if name in GONE else ""
    raise AttributeError(f"module 'minimodal' has no attribute {name!r}{hint}")
