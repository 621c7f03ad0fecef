"""The START frame: all that an agent needs to load a function."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from minimodal.codec import to_plain
from minimodal.types import EMPTY, ByName, ByValue, Payload

from .exchange import web_of

if TYPE_CHECKING:
    from .session import Session


def start_frame(session: Session) -> tuple[str, Payload]:
    """Its words, and what travels by value: the function and the arguments of its class."""
    pool = session.pool
    spec, engine = pool.spec, pool.engine
    fields: dict[str, Any] = {
        "container_id": session.id,
        "app_id": spec.app,
        "app_name": pool.app_name,
        "function": spec.name,
        "key": spec.key,
        "image": session.image.digest,
        "env": environment(session),
        "max_inputs": spec.max_inputs,
        "is_batched": spec.batching is not None,
        "is_class": spec.is_class,
        "workdir": session.image.workdir,
        "interactive": engine.terminal.front is not None,
        "web": {name: to_plain(endpoint) for name, endpoint in web_of(spec)},
    }
    data, parameters = b"", spec.parameters or EMPTY
    match spec.target:
        case ByName(module, qualname, _):
            fields |= {"module": module, "qualname": qualname}
        case ByValue(blob, python, _):
            fields |= {"python": python}
            data = engine.blob(blob)
    buffers = [memoryview(each) for each in parameters.buffers]  # to arrive writable
    return json.dumps(fields), Payload(data, (parameters.data, *buffers))


def environment(session: Session) -> dict[str, str]:
    """Of a function's processes. Sent over the control connection, seen nowhere else."""
    return {
        **session.secrets,
        **dict(session.pool.spec.env),
        "MINIMODAL_IS_REMOTE": "1",
        "MINIMODAL_TASK_ID": session.id,
        "MODAL_IS_REMOTE": "1",
        "MODAL_TASK_ID": session.id,
    }
