"""The options of a function or class: Modal's names, checked where they are written down.

One table of checks serves `@app.function`, `@app.cls` and `with_options`. What of Modal's options is
ignored or refused on one machine is in compat.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .compat import REFUSED, RENAMED, SAFE, check_option
from .errors import ConflictError, InvalidError

if TYPE_CHECKING:
    from .image import Image
    from .policy import Cron, Period
    from .types import Batching, Payload, Resources, RetryPolicy, Scaling

NOT_GIVEN = frozenset({"max_inputs", "target_inputs", "batching", "arguments"})
"""Fields of Options that are no options: with_concurrency() and its like set them."""

MODALS = SAFE | REFUSED.keys()
"""Options of Modal's that one machine ignores or refuses."""

MAX_TIMEOUT = 24 * 3600
_GPU = re.compile(r"[A-Za-z0-9][\w.+!-]*(:[1-9][0-9]?)?")
RESOURCE_OPTIONS = ("cpu", "memory", "gpu")
SCALING_OPTIONS = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")


class Arguments(NamedTuple):
    """Constructor arguments of an object. `identity` is equal for equal ones."""

    identity: str
    payload: Payload


class Options(NamedTuple):
    """Checked options. None means: not given, so that `with_options` changes only what is given."""

    image: Image | None = None
    secrets: tuple[Any, ...] | None = None
    env: Mapping[str, str] | None = None
    volumes: Mapping[str, Any] | None = None
    cpu: float | tuple[float, float] | None = None
    memory: int | tuple[int, int] | None = None
    gpu: str | None = None
    timeout: float | None = None
    startup_timeout: float | None = None
    retries: RetryPolicy | None = None
    min_containers: int | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: float | None = None
    single_use_containers: bool | None = None
    schedule: Cron | Period | None = None
    serialized: bool = False
    name: str | None = None
    is_generator: bool | None = None
    block_network: bool | None = None
    runtime: str | None = None
    max_inputs: int | None = None  # these four are set by methods of their own: see NOT_GIVEN
    target_inputs: int | None = None
    batching: Batching | None = None
    arguments: Arguments | None = None

    def resources(self, base: Resources | None = None) -> Resources:
        """`base` with what is given here. A plain number is a request; only a pair gives a limit."""

        from .types import Resources

        base = base or Resources()
        if self.cpu is not None:
            cpu, cpu_limit = self.cpu if isinstance(self.cpu, tuple) else (self.cpu, None)
            base = base._replace(cpu=cpu, cpu_limit=cpu_limit)
        if self.memory is not None:
            memory, limit = self.memory if isinstance(self.memory, tuple) else (self.memory, None)
            base = base._replace(memory=memory, memory_limit=limit)
        return base._replace(gpu=self.gpu) if self.gpu else base

    def scaling(self, base: Scaling | None = None) -> Scaling:
        """`base` with what is given here. Raises InvalidError for bounds that exclude each other."""

        from .types import Scaling

        given = {n: getattr(self, n) for n in SCALING_OPTIONS if getattr(self, n) is not None}
        scaling = (base or Scaling())._replace(**given)
        if scaling.max_containers is not None and scaling.min_containers > scaling.max_containers:
            raise InvalidError(
                f"min_containers={scaling.min_containers} is more than "
                f"max_containers={scaling.max_containers}"
            )
        return scaling


def check(what: str, given: Mapping[str, Any]) -> Options:
    """Check the options given to `what` (such as "@app.function"). Raises InvalidError."""
    known = set(Options._fields) - NOT_GIVEN
    values = {k: v for k, v in given.items() if k not in MODALS and v is not None}
    for name in given.keys() & MODALS:
        check_option(what, name, given[name])
    for name in values.keys() - known:
        raise InvalidError(f"{what} has no option {name!r}{_nearest(name, known | MODALS)}")
    for name, value in values.items():
        checker = _CHECKS.get(name)
        if checker is not None:
            values[name] = checker(f"{what}: {name}", value)
    options = Options(**values)
    if options.min_containers and options.max_containers:
        options.scaling()
    return options


def _nearest(name: str, known: Sequence[str] | frozenset[str] | set[str]) -> str:
    import difflib

    if name in RENAMED:
        return f": write {RENAMED[name]}"
    close = difflib.get_close_matches(name, list(known), 1)
    return f". Did you mean {close[0]!r}?" if close else ""


def _number(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidError(f"{what} must be a number, not {value!r}")
    return value


def _at_least(minimum: float, whole: bool = True, maximum: float | None = None) -> Any:
    def checked(what: str, value: Any) -> Any:
        number = _number(what, value)
        if whole and int(number) != number:
            raise InvalidError(f"{what} must be a whole number, not {value!r}")
        if number < minimum or (maximum is not None and number > maximum):
            upper = "" if maximum is None else f" and at most {maximum:g}"
            raise InvalidError(f"{what} must be at least {minimum:g}{upper}, not {value!r}")
        return int(number) if whole else number

    return checked


def _request(minimum: float, whole: bool) -> Any:
    one = _at_least(minimum, whole)

    def checked(what: str, value: Any) -> Any:
        if not isinstance(value, tuple):
            return one(what, value)
        if len(value) != 2:
            raise InvalidError(f"{what} must be a number or a pair (request, limit), not {value!r}")
        request, limit = one(what, value[0]), one(what, value[1])
        if request > limit:
            raise InvalidError(f"{what}: the request {request} is more than the limit {limit}")
        return request, limit

    return checked


def _retries(what: str, value: Any) -> RetryPolicy:
    from .policy import retry_policy

    return retry_policy(value)


def _mapping_of_text(what: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidError(f"{what} must be a dict of strings, not {value!r}")
    kept = {k: v for k, v in value.items() if v is not None}
    for k, v in kept.items():
        if not isinstance(k, str) or not isinstance(v, str):
            raise InvalidError(f"{what}: {k!r} must be a string with a string value, not {v!r}")
        if not k or "=" in k or "\0" in k or "\0" in v:
            raise InvalidError(f"{what}: {k!r} is not a name that an environment can hold")
    return kept


def _volumes(what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidError(f"{what} must be a dict of mount path to Volume, not {value!r}")
    seen: dict[int, str] = {}
    checked: dict[str, Any] = {}
    for path, volume in value.items():
        target = str(path).rstrip("/")
        if not target.startswith("/") or target in ("", "/root", "/tmp"):
            raise InvalidError(
                f"{what}: {str(path)!r} must be an absolute path other than /, /root and /tmp"
            )
        if id(volume) in seen:
            raise ConflictError(f"{what}: one volume at both {seen[id(volume)]!r} and {target!r}")
        seen[id(volume)] = target
        checked[target] = volume
    return checked


def _secrets(what: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        raise InvalidError(f"{what} must be a list of Secret, not {value!r}")
    return tuple(value)


def _image(what: str, value: Any) -> Any:
    from .image import Image

    if not isinstance(value, Image):
        raise InvalidError(f"{what} must be an Image, such as Image.debian_slim(), not {value!r}")
    return value


def _schedule(what: str, value: Any) -> Any:
    from .policy import Cron, Period

    if not isinstance(value, (Cron, Period)):
        raise InvalidError(f"{what} must be a Cron or a Period, not {value!r}")
    return value


def _gpu(what: str, value: Any) -> str:
    wanted = list(value) if isinstance(value, (list, tuple)) else [value]
    for each in wanted or [value]:
        if not isinstance(each, str) or not _GPU.fullmatch(each):
            raise InvalidError(f'{what} must be a text such as "any" or "A100:2", not {each!r}')
    return ",".join(wanted)


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidError(f"{what} must be a text, not {value!r}")
    return value


_CHECKS: dict[str, Any] = {
    "image": _image,
    "secrets": _secrets,
    "env": _mapping_of_text,
    "volumes": _volumes,
    "cpu": _request(0.01, whole=False),
    "memory": _request(1, whole=True),
    "gpu": _gpu,
    "timeout": _at_least(1, whole=False, maximum=MAX_TIMEOUT),
    "startup_timeout": _at_least(1, whole=False, maximum=MAX_TIMEOUT),
    "retries": _retries,
    "min_containers": _at_least(0),
    "max_containers": _at_least(1),
    "buffer_containers": _at_least(0),
    "scaledown_window": _at_least(1, whole=False, maximum=24 * 3600),
    "schedule": _schedule,
    "name": _text,
    "runtime": _text,
}


def variant_name(changes: Mapping[str, Any]) -> str:
    """What tells a variant's pool from others of its function: equal for equal changes."""
    import hashlib  # neither is needed in a container
    import json

    text = json.dumps(changes, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
