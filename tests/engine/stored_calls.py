"""The calls and outcomes that tests of the store put into it, and what they ask of it besides."""

from __future__ import annotations

from minimodal.engine.store import Store
from minimodal.types import Call, CallState, Failure, Outcome, Payload

BOOM = Failure("ValueError", "boom", "Traceback: boom", Payload(b"pickled error"))
OK = Outcome(CallState.OK, Payload(b"value"))
ERROR = Outcome(CallState.ERROR, failure=BOOM)
INPUT = Payload(b"input")
BIG = Payload(b"p" * 300_000, (b"q" * 400_000, b"small"))


def call(id: str, function: str = "app/f", payload: Payload = INPUT) -> Call:
    return Call(id, function, payload, durable=True)


def everyone_is_dead(_: str) -> bool:
    return False


async def blob_names(store: Store) -> set[str]:
    return set(store.blobs.digests())
