"""What happened, for people: a bounded history and live subscribers. Nothing depends on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import anyio

from minimodal.clock import Clock

HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """`kind`: image.build, image.built, image.failed, container.starting, container.ready, container.stopped, log,
    call.finished, app.opened, app.closed, notice. `name`: the function, image or app it is about."""

    kind: str
    name: str
    at: float  # wall clock
    number: int  # grows by one; a reader that reconnects asks for what came after
    fields: dict[str, Any] = field(default_factory=dict)


Subscriber = Callable[[Event], None]


class EventLog:
    """The last `HISTORY` events. Subscribers run on the engine's loop and must return at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: deque[Event] = deque(maxlen=HISTORY)
        self._subscribers: list[Subscriber] = []
        self._count = 0

    def publish(self, kind: str, name: str, **fields: Any) -> None:
        self._count += 1
        event = Event(kind, name, self._clock.now(), self._count, fields)
        self._events.append(event)
        for subscriber in tuple(self._subscribers):  # one may leave when it is called
            subscriber(event)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` for each event from now on, until the returned function is called."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def since(self, number: int) -> list[Event]:
        """Events after `number` that are still kept, oldest first."""
        gone = self._count - len(self._events)
        return list(islice(self._events, max(0, number - gone), None))

    @property
    def last(self) -> int:
        """The number of the newest event."""
        return self._count

    async def wait_after(self, number: int) -> None:
        """Wait until there is an event with a higher number."""
        if self._count > number:
            return
        came = anyio.Event()
        unsubscribe = self.subscribe(lambda _: came.set())
        try:
            await came.wait()
        finally:
            unsubscribe()
