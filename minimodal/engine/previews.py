"""What a call was given and what it gave, as text, from wherever either still is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from minimodal.errors import Error
from minimodal.types import EMPTY

from . import peek
from .masking import Mask

if TYPE_CHECKING:
    from .calls import Ended, LiveCall
    from .engine import Engine


async def previews(
    engine: Engine, row: Mapping[str, Any], live: LiveCall | None, ended: Ended | None
) -> dict[str, str | None]:
    """`input` and `value` of a call as listings have it; None where it is not kept.

    Secrets of the function are hidden. A large value of an attached call, and the input of one that
    ended well, is nobody's any more.
    """
    given = value = EMPTY
    if live is not None:
        given = live.call.payload
        value = (live.outcome and live.outcome.value) or EMPTY
    if ended is not None:
        given, value = ended.input, value if value.data else ended.value
    known = ended or live
    web = known is not None and known.call.web
    pool = known.pool if known is not None else engine.pools.get(row["function"])
    try:
        if not value.data and row["state"] == "ok" and row["durable"]:
            outcome = await engine.durable.store.outcome(row["id"])
            value = (outcome and outcome.value) or EMPTY
        if not given.data and row["dead"]:
            given = (await engine.durable.store.dead_letters.show(row["id"])).input
        secrets = pool.spec.secrets if pool is not None else ()
        mask = Mask((await engine.objects.secrets.resolve(secrets)).values())
    except Error:
        return {"input": None, "value": None}  # it has expired, or its secrets are gone
    return {
        "input": mask.text(peek.arguments(given, web=web)) if given.data else None,
        "value": mask.text(peek.value(value)) if value.data and not web else None,
    }
