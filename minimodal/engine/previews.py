"""What a call was given and what it gave, as text, from wherever either still is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from minimodal.errors import Error
from minimodal.types import EMPTY, Payload

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
    from . import peek  # when somebody looks

    given = value = EMPTY
    if live is not None:
        given = live.call.payload
        value = (live.outcome and live.outcome.value) or EMPTY
    if ended is not None:
        given, value = ended.input, value if value.data else ended.value
    known = ended or live
    web = known is not None and known.call.web
    pool = engine.pools.get(row["function"])
    label = known.label if known is not None else pool.label if pool is not None else None
    shown_input: Payload | None = given
    shown_value: Payload | None = value
    try:
        wants_value = not value.data and row["state"] == "ok" and row["durable"]
        wants_input = not given.data and row["dead"]
        if wants_value or wants_input:
            kept = await engine.durable.store.small(row["id"])
            shown_input = kept[0] if wants_input else given
            shown_value = kept[1] if wants_value else value
        secrets = label.secrets if label is not None else ()
        mask = Mask((await engine.objects.secrets.resolve(secrets)).values())
    except Error:
        return {"input": None, "value": None}  # it has expired, or its secrets are gone
    return {
        "input": _shown(shown_input, mask, lambda it: peek.arguments(it, web=web)),
        "value": None if web else _shown(shown_value, mask, peek.value),
    }


def _shown(payload: Payload | None, mask: Mask, words: Callable[[Payload], str]) -> str | None:
    if payload is None:
        return "(too long to be shown)"
    return mask.text(words(payload)) if payload.data else None
