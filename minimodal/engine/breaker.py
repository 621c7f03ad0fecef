"""`Breaker`: stops starting containers that keep failing, and tries one from time to time.

Owns one function's (or image's) record of containers that failed to come up: the launch, the import,
`@enter`. What happens to a container that came up is none of its business: exceptions are the user's,
and a call that kills its containers is bounded by its own count of losses. One bad input that
crashes the interpreter must not close a function to all the good ones.

The pattern is Nygard's ("Release It!", 2007). Closed: everything starts. After `threshold` failures in
a row it opens: nothing starts for `first_delay`. Then it is half open: one probe may start. The
probe's success closes it, its failure opens it for `factor` times as long, at most `longest_delay`.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class BreakerState(Enum):
    CLOSED = "closed"  # containers start as needed
    OPEN = "open"  # none starts; calls fail fast
    HALF_OPEN = "half-open"  # one probe may start, or is on its way


class BreakerView(NamedTuple):
    """For errors, `ps` and the dashboard. `retry_in`: seconds until a probe may start."""

    state: BreakerState
    failures: int  # in a row
    reason: str  # of the last failure; empty if there was none since the last success
    retry_in: float

    def __str__(self) -> str:
        if self.state is BreakerState.CLOSED:
            return "closed"
        when = f"in {self.retry_in:.1f} s" if self.retry_in > 0 else "now"
        return (
            f"{self.state.value}: {self.failures} containers failed in a row, the last because "
            f"{self.reason}; one is tried again {when}"
        )


class Breaker:
    """Whether containers may start. All times are seconds on one monotonic clock.

    Each start takes a ticket from `admit` and gives it back to exactly one of `success`, `failure`
    and `withdraw`. Tickets tell a probe from stragglers that were started before the breaker opened.
    """

    def __init__(
        self,
        threshold: int = 5,
        first_delay: float = 1.0,
        factor: float = 2.0,
        longest_delay: float = 60.0,
    ) -> None:
        self._threshold = threshold
        self._first_delay = first_delay
        self._factor = factor
        self._longest_delay = longest_delay
        self._delay = first_delay  # of the next opening
        self._failures = 0
        self._reason = ""
        self._open_until: float | None = None  # None: closed
        self._tickets = 0
        self._pending: set[int] = set()
        self._probe: int | None = None

    @property
    def closed(self) -> bool:
        return self._open_until is None

    def state(self, now: float) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if now >= self._open_until else BreakerState.OPEN

    def view(self, now: float) -> BreakerView:
        left = max(0.0, (self._open_until or now) - now)
        return BreakerView(self.state(now), self._failures, self._reason, left)

    def allowance(self, now: float) -> int | None:
        """How many containers may be starting at once, for `PoolView.may_start`. None: any number.

        After a failure only as many as could fail before the breaker opens.
        """
        match self.state(now):
            case BreakerState.OPEN:
                return 0
            case BreakerState.HALF_OPEN:
                return 1
        return self._threshold - self._failures if self._failures else None

    def fails_fast(self, now: float) -> bool:
        """Whether a new call should fail at once with `CircuitOpen` rather than wait."""
        return self.state(now) is BreakerState.OPEN

    def admit(self, now: float) -> int | None:
        """A ticket for one start now, or None if there may be none."""
        state = self.state(now)
        if state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and self._probe):
            return None
        self._tickets += 1
        self._pending.add(self._tickets)
        if state is BreakerState.HALF_OPEN:
            self._probe = self._tickets
        return self._tickets

    def success(self, ticket: int) -> None:
        """The container is ready for calls: whatever failed before is over."""
        if ticket not in self._pending:
            return
        self._pending.remove(ticket)
        self._failures = 0
        self._reason = ""
        self._open_until = None
        self._delay = self._first_delay
        self._probe = None

    def failure(self, ticket: int, now: float, reason: str) -> None:
        """The container did not come up, `reason` in words ("it exited with code 1")."""
        if ticket not in self._pending:
            return
        self._pending.remove(ticket)
        if self._open_until is not None and ticket != self._probe:
            return  # a straggler, started before it opened: it tells nothing new
        self._failures += 1
        self._reason = reason
        if ticket == self._probe or self._failures >= self._threshold:
            self._open(now)

    def withdraw(self, ticket: int) -> None:
        """The start was given up for another reason: it tells nothing. A probe may be sent again."""
        self._pending.discard(ticket)
        if ticket == self._probe:
            self._probe = None

    def reset(self) -> None:
        """Close it by hand, or because new code was deployed."""
        self._failures = 0
        self._reason = ""
        self._open_until = None
        self._delay = self._first_delay
        self._probe = None

    def _open(self, now: float) -> None:
        self._open_until = now + self._delay
        self._delay = min(self._longest_delay, self._delay * self._factor)
        self._probe = None


Ticket = tuple[int, int]


class Breakers:
    """A function's own breaker and that of its image, which other functions share, asked as one.

    An image whose containers never come as far as saying hello (no Python, a runtime that refuses)
    stops all its functions after `threshold` starts in all, not after as many of each.
    """

    def __init__(self, image: Breaker) -> None:
        self.own = Breaker()
        self.image = image

    @property
    def closed(self) -> bool:
        return self.own.closed and self.image.closed

    def view(self, now: float) -> BreakerView:
        """Of the one that stops it; of the image's where both do."""
        return self.own.view(now) if self.image.closed else self.image.view(now)

    def allowance(self, now: float) -> int | None:
        allowed = [each.allowance(now) for each in (self.own, self.image)]
        return min((each for each in allowed if each is not None), default=None)

    def fails_fast(self, now: float) -> bool:
        return self.own.fails_fast(now) or self.image.fails_fast(now)

    def admit(self, now: float) -> Ticket | None:
        own = self.own.admit(now)
        image = None if own is None else self.image.admit(now)
        if own is None or image is None:
            if own is not None:
                self.own.withdraw(own)
            return None
        return own, image

    def success(self, ticket: Ticket) -> None:
        self.own.success(ticket[0])
        self.image.success(ticket[1])

    def failure(self, ticket: Ticket, now: float, reason: str, *, of_image: bool) -> None:
        """`of_image`: the container ran and its agent never said hello."""
        self.own.failure(ticket[0], now, reason)
        if of_image:
            self.image.failure(ticket[1], now, reason)
        else:
            self.image.withdraw(ticket[1])

    def withdraw(self, ticket: Ticket) -> None:
        self.own.withdraw(ticket[0])
        self.image.withdraw(ticket[1])

    def reset(self) -> None:
        self.own.reset()
        self.image.reset()
